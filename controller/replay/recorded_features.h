#pragma once
// What a recorded decision was made from, in the form in which a policy is asked: the features that
// the trace holds, and for a learned policy what it does not hold and the bank does, the
// candidates' kinds and the means of their keys in the policy's whitening.
//
// Errors:  kNotFound: a candidate's version is gone; kMismatch: the policy's whitening is of
//          another width than a candidate's keys.
// Owner:   the candidates' keys are views into this.
// Threads: one; it reads the bank.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "controller/policy/policy_shelf.h"
#include "rl/selection_policy.h"
#include "shared/trace/event.h"
#include "storage/memory_bank.h"

namespace memslot {

// REQUIRES: decision.features, and that the decision outlives what is returned.
StepContext recorded_context(std::uint64_t session, const trace::Decision& decision);

class RecordedFeatures {
 public:
  RecordedFeatures(MemoryBank& bank, TimePoint deadline) : bank_(bank), deadline_(deadline) {}

  // `learned` null: for a rule.
  Result<std::vector<Candidate>> candidates_of(const trace::Decision& decision,
                                               const PolicySnapshot* learned);

 private:
  struct Known {
    MemoryKind kind = MemoryKind::kMlp;
    std::vector<float> mean;  // (R); empty: no keys
  };
  Result<const Known*> known(const PolicySnapshot& learned, const MemoryRef& ref);

  MemoryBank& bank_;
  const TimePoint deadline_;
  std::map<std::pair<std::string, MemoryRef>, Known> known_;  // by the policy's digest
};

}  // namespace memslot
