#include "rl/policies/nearest_policy.h"

namespace memslot {

Choice NearestPolicy::choose(const StepContext& step, std::span<const Candidate> candidates) const {
  MEMSLOT_CHECK(!candidates.empty() && candidates[0].is_base);
  Choice choice;
  if (step.query.empty()) {
    choice.index = current_of(candidates);
    choice.scores.assign(candidates.size(), 0.0f);
    choice.scores[choice.index] = 1.0f;
    return choice;
  }
  choice.scores.reserve(candidates.size());
  choice.scores.push_back(threshold_);
  for (std::size_t i = 1; i < candidates.size(); ++i) {
    choice.scores.push_back(candidates[i].best_key);
    if (choice.scores[i] > choice.scores[choice.index]) choice.index = i;
  }
  return choice;
}

}  // namespace memslot
