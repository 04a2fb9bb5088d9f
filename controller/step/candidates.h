#pragma once
// The candidates of one step and one slot, in the order base, current or wanted, nearest.
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
  std::span<const float> query;  // whitened; empty before the first summary
  MemoryRef current;             // active in this slot; id empty: base
  std::size_t limit = kMaxCandidates;
};

CandidateList make_candidates(const CandidateIndex& index, const CandidateRequest& request);

}  // namespace memslot
