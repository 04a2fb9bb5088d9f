#include "rl/policies/random_policy.h"

#include <cmath>

#include "shared/base/rng.h"

namespace memslot {

Choice RandomPolicy::choose(const StepContext& step, std::span<const Candidate> candidates) const {
  MEMSLOT_CHECK(!candidates.empty() && candidates[0].is_base);
  Choice choice;
  choice.index = uniform_below(candidates.size(), step.seed, step.session, step.step);
  choice.log_prob = -std::log(static_cast<float>(candidates.size()));
  choice.scores.assign(candidates.size(), 0.0f);
  return choice;
}

}  // namespace memslot
