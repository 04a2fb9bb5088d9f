#pragma once
// Which of the connected generators could do a learn job, and, where none can, what is missing.
//
// A generator can do a job if it may read the job's namespace, reads text at all (its model brings
// a tokenizer) and has the slot that the job asks for.
//
// Threads: one at a time.
#include <string>

#include "controller/jobs/job.h"
#include "controller/link/peer_table.h"

namespace memslot {

bool can_learn(const Peer& peer, std::string_view ns, int layer);

// What keeps a job of this namespace and slot layer (-1: any) from being learned by those who are
// connected, for a user to read; "" if one of them could.
std::string missing_learner(const PeerTable& peers, std::string_view ns, int layer);

// For a job that is about to be submitted. kNotFound where generators are here and none of them can
// do it: the client should hear of it rather than wait. Where there is none, one may come.
Status check_learners(const PeerTable& peers, std::string_view ns, int layer);

}  // namespace memslot
