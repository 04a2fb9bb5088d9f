#pragma once
// The memory whose best key is nearest to the query, if it is near enough; base otherwise. Where
// there is no query yet, what is active stays.
//
//   score(m) = best_key(m);  score(base) = threshold;  choice = arg max (base wins ties)
//
// Threads: immutable.
#include "rl/selection_policy.h"

namespace memslot {

inline constexpr float kDefaultNearestThreshold = 0.3f;  // cosine of whitened vectors

class NearestPolicy final : public SelectionPolicy {
 public:
  explicit NearestPolicy(float threshold) : threshold_(threshold) {}
  std::string_view name() const override { return "nearest"; }
  std::string_view digest() const override { return ""; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override;

 private:
  float threshold_;
};

}  // namespace memslot
