#pragma once
// Decisions again, from what a trace recorded of them: the policy that acted is asked with the same
// features, and must answer with the same choice, log-probability and scores, bit for bit.
//
//   rule      made anew from its spec.
//   learned   found by its digest; the means of the candidates' keys, which it compares in pairs,
//             are made from the bank's keys as they were for the directive.
//
// Not checkable, and counted so: decisions recorded without features, a policy that the bank no
// longer keeps, candidates whose versions were erased.
//
// Threads: any; it reads the bank.
#include <string>
#include <vector>

#include "controller/policy/policy_shelf.h"
#include "shared/trace/reader.h"
#include "storage/memory_bank.h"

namespace memslot {

struct DecisionReport {
  struct Other {
    std::uint64_t step = 0;
    std::uint32_t slot = 0;
    std::string what;  // "choice", "log_prob" or "scores"
  };
  std::uint64_t decisions = 0, checked = 0;
  std::vector<Other> others;           // by step
  std::vector<std::string> unchecked;  // why, each reason once
};

// `shelf` null: there are no learned policies.
DecisionReport check_decisions(const trace::Trace& trace, PolicyShelf* shelf, MemoryBank& bank,
                               TimePoint deadline);

}  // namespace memslot
