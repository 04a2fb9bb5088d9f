#pragma once
// Always the model's own MLP. Threads: immutable.
#include "rl/selection_policy.h"

namespace memslot {

class BasePolicy final : public SelectionPolicy {
 public:
  std::string_view name() const override { return "base"; }
  std::string_view digest() const override { return ""; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override;
};

}  // namespace memslot
