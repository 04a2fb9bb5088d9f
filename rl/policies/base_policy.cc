#include "rl/policies/base_policy.h"

namespace memslot {

Choice BasePolicy::choose(const StepContext&, std::span<const Candidate> candidates) const {
  MEMSLOT_CHECK(!candidates.empty() && candidates[0].is_base);
  Choice choice;
  choice.scores.assign(candidates.size(), 0.0f);
  choice.scores[0] = 1.0f;
  return choice;
}

}  // namespace memslot
