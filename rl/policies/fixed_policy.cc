#include "rl/policies/fixed_policy.h"

namespace memslot {

Choice FixedPolicy::choose(const StepContext&, std::span<const Candidate> candidates) const {
  MEMSLOT_CHECK(!candidates.empty() && candidates[0].is_base);
  Choice choice;
  choice.scores.assign(candidates.size(), 0.0f);
  for (std::size_t i = 1; i < candidates.size(); ++i) {
    const MemoryRef& ref = candidates[i].ref;
    const bool same_version = ref_.version == 0 || ref.version == ref_.version;
    if (ref.ns == ref_.ns && ref.id == ref_.id && same_version) choice.index = i;
  }
  choice.scores[choice.index] = 1.0f;
  return choice;
}

}  // namespace memslot
