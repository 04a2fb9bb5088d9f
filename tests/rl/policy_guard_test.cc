#include "rl/policy_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "shared/base/rng.h"

namespace memslot {
namespace {

// Two actions with rewards 1 and 0 (and noise); mu takes the first with probability `mu`.
std::vector<LoggedStep> logged(double mu, double good, double other, int steps,
                               std::uint64_t seed = 1) {
  std::vector<LoggedStep> out;
  const auto log_of = [](double p, bool first) {
    return static_cast<float>(std::log(first ? p : 1 - p));
  };
  for (int i = 0; i < steps; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const bool first = uniform01(seed, 1, at) < mu;
    const double noise = uniform01(seed, 2, at) - 0.5;
    out.push_back({at / 8, static_cast<float>((first ? 1.0 : 0.0) + noise), log_of(mu, first),
                   log_of(good, first), log_of(other, first)});
  }
  return out;
}

TEST(PolicyGuard, EstimatesWhatEachPolicyWouldHaveEarned) {
  const auto found = compare_policies(logged(0.5, 0.3, 0.8, 8000));
  EXPECT_NEAR(found.value_good, 0.3, 0.03);
  EXPECT_NEAR(found.value_new, 0.8, 0.03);
  EXPECT_TRUE(found.better());
  EXPECT_FALSE(found.worse());
  EXPECT_EQ(found.steps, 8000u);
}

TEST(PolicyGuard, AlmostNeverCallsAnEqualPolicyBetterAndOneInTwentyWorse) {
  int better = 0, worse = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    // Two policies of the same worth that differ: they agree on average over a hidden coin.
    auto steps = logged(0.5, 0.5, 0.5, 256, seed);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const bool heads = uniform01(seed, 3, i) < 0.5;
      steps[i].log_new = static_cast<float>(std::log(heads ? 0.6 : 0.4));
    }
    const auto found = compare_policies(steps);
    better += found.better() ? 1 : 0;
    worse += found.worse() ? 1 : 0;
  }
  EXPECT_LE(better, 4);
  EXPECT_LT(worse, 40);
  EXPECT_GT(worse, 5) << "the standard error is far too large";
}

TEST(PolicyGuard, FewStepsOfAPolicyThatWasNeverSeenCountForLittle) {
  const auto found = compare_policies(logged(0.99, 0.99, 0.01, 200));
  EXPECT_LT(found.effective_steps, 10);
}

TEST(PolicyGuard, LeavesOutWhatIsNotFiniteAndSaysNothingOfNothing) {
  auto steps = logged(0.5, 0.3, 0.8, 100);
  steps[3].reward = std::numeric_limits<float>::quiet_NaN();
  steps[4].log_mu = -std::numeric_limits<float>::infinity();
  steps[5].log_new = std::numeric_limits<float>::quiet_NaN();
  steps[6].log_new = -std::numeric_limits<float>::infinity();  // never taken: that is known
  const auto found = compare_policies(steps);
  EXPECT_EQ(found.steps, 97u);
  EXPECT_TRUE(std::isfinite(found.value_new));
  const auto none = compare_policies({});
  EXPECT_FALSE(none.better());
  EXPECT_FALSE(none.worse());
}

}  // namespace
}  // namespace memslot
