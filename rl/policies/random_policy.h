#pragma once
// Uniform over the candidates, base included; the same choice for the same (seed, session, step).
// Threads: immutable.
#include "rl/selection_policy.h"

namespace memslot {

class RandomPolicy final : public SelectionPolicy {
 public:
  std::string_view name() const override { return "random"; }
  std::string_view digest() const override { return ""; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override;
};

}  // namespace memslot
