#pragma once
// The candidates of one step and one slot, in the order base, current or wanted, nearest. A
// candidate's key is the index's: it lives until the next change of the index.
//
// Threads: pure function of its arguments.
#include <span>
#include <vector>

#include "controller/session/session_table.h"
#include "controller/step/candidate_index.h"
#include "rl/selection_policy.h"

namespace memslot {

struct CandidateList {
  std::vector<Candidate> candidates;
  std::vector<const MemoryVersion*> versions;  // parallel; null for base
};

struct CandidateRequest {
  const Session& session;
  std::uint32_t slot = 0;
  std::uint64_t step = 0;
  SpaceKey space;
  const Whitened& query;  // empty before the first summary
  MemoryRef current;      // active in this slot; id empty: base
  std::size_t limit = kMaxCandidates;
  bool draw = true;     // before the first summary; else there are only base and the current one
  float swap_cost = 0;  // of all but the current one, nats per token
};

CandidateList make_candidates(const CandidateIndex& index, const CandidateRequest& request);

}  // namespace memslot
