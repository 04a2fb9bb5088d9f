#include "rl/policy_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

std::vector<float> logs(double first) {
  return {static_cast<float>(std::log(first)), static_cast<float>(std::log(1 - first))};
}

// Two actions with rewards 1 and 0 (and noise), in episodes of eight steps; what acts takes the
// first with probability `acting`.
std::vector<LoggedStep> logged(double acting, double other, int steps, std::uint64_t seed = 1) {
  std::vector<LoggedStep> out;
  for (int i = 0; i < steps; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const bool first = uniform01(seed, 1, at) < acting;
    const double noise = uniform01(seed, 2, at) - 0.5;
    out.push_back({at / 8, static_cast<float>((first ? 1.0 : 0.0) + noise), first ? 0u : 1u,
                   logs(acting), logs(other)});
  }
  return out;
}

PolicyComparison drawn(std::span<const LoggedStep> steps) {
  return compare_policies(steps, ActsBy::kDrawing);
}

// A comparison as the guard would be told.
PolicyComparison told(double difference, double standard_error, std::size_t episodes = 30) {
  PolicyComparison out;
  out.value_good = 0.2;
  out.value_new = 0.2 + difference;
  out.judged_difference = difference;
  out.standard_error = standard_error;
  out.effective_steps = 500;
  out.steps = 600;
  out.episodes = episodes;
  return out;
}

// Episodes of ten steps around a reward; how often the world was seen to change.
int earn(PolicyGuard& guard, double reward, int episodes) {
  int shifts = 0;
  for (int i = 0; i < episodes; ++i) {
    shifts += guard.earned(10 * (reward + (i % 2 == 0 ? 0.1 : -0.1)), 10) ? 1 : 0;
  }
  return shifts;
}

TEST(PolicyGuard, EstimatesWhatEachPolicyWouldHaveEarned) {
  const auto found = drawn(logged(0.3, 0.8, 8000));
  EXPECT_NEAR(found.value_good, 0.3, 0.03);
  EXPECT_NEAR(found.value_new, 0.8, 0.03);
  EXPECT_GT(found.lower(0.001), 0);
  EXPECT_EQ(found.steps, 8000u);
  EXPECT_EQ(found.episodes, 1000u);
}

TEST(PolicyGuard, EstimatesWhatBestActionsWouldHaveEarned) {
  const auto found = compare_policies(logged(0.4, 0.7, 8000), ActsBy::kBestAction);
  EXPECT_NEAR(found.value_good, 0.0, 0.04);
  EXPECT_NEAR(found.value_new, 1.0, 0.04);
}

TEST(PolicyGuard, WherePoliciesAgreeTheNoiseOfRewardsIsNoDifference) {
  const auto same = logged(0.5, 0.5, 400);
  EXPECT_EQ(drawn(same).difference(), 0);
  EXPECT_EQ(drawn(same).standard_error, 0);
  const auto also = compare_policies(logged(0.6, 0.9, 400), ActsBy::kBestAction);
  EXPECT_EQ(also.difference(), 0) << "the same best action";
}

// What went wrong once: a policy that mostly does what was never tried was judged by the rest.
TEST(PolicyGuard, WhatWasHardlyEverTriedCountsAsBad) {
  std::vector<LoggedStep> steps;
  for (std::uint64_t i = 0; i < 800; ++i) {
    const bool first = uniform01(3, 1, i) < 0.5;
    const auto log_of = [](double p) { return static_cast<float>(std::log(p)); };
    // The third action was never drawn in 800 steps. Without it the other policy looks better.
    steps.push_back({i / 8,
                     first ? 0.4f : 0.0f,
                     first ? 0u : 1u,
                     {log_of(0.49995), log_of(0.49995), log_of(0.0001)},
                     {log_of(0.39), log_of(0.01), log_of(0.60)}});
  }
  const auto found = drawn(steps);
  EXPECT_NEAR(found.unjudged, 0.6 - 10 * 0.0001, 1e-4);
  EXPECT_NEAR(found.value_new, 0.39 * 0.4, 0.02) << "the untried as bad as the worst: 0";
  EXPECT_GT(found.judged_difference, 0.05) << "a self-normalised estimate would see this alone";
  EXPECT_LT(found.difference(), 0);
}

TEST(PolicyGuard, HoweverOftenItLooksAnEqualPolicyIsPublishedInOneOfTwentyWorldsAtMost) {
  int published = 0, set_back = 0;
  constexpr std::uint64_t kWorlds = 100;
  for (std::uint64_t seed = 0; seed < kWorlds; ++seed) {
    // Two policies of the same worth that differ: they agree on average over a hidden coin.
    auto steps = logged(0.5, 0.5, 640, seed);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      steps[i].other = logs(uniform01(seed, 3, i) < 0.5 ? 0.6 : 0.4);
    }
    PolicyGuard guard;
    bool passed = false, fell = false;
    for (std::size_t n = 128; n <= steps.size(); n += 32) {
      const auto verdict = guard.judge(drawn(std::span(steps).first(n)), told(0, 0));
      passed = passed || verdict == PolicyGuard::Verdict::kPublish;
      fell = fell || verdict == PolicyGuard::Verdict::kSetBack;
    }
    published += passed ? 1 : 0;
    set_back += fell ? 1 : 0;
  }
  EXPECT_LE(published, 9) << "5 expected at most, and two standard errors of their number";
  EXPECT_GT(set_back, 5) << "caution costs little: the standard error is not far too large";
}

TEST(PolicyGuard, ABetterPolicyIsPublishedOnceSixteenEpisodesWereHeldOut) {
  PolicyGuard guard;
  EXPECT_EQ(guard.judge(told(0.1, 0.01, 15), told(0.1, 0.01, 15)), PolicyGuard::Verdict::kGoOn);
  EXPECT_EQ(guard.judge(told(0.1, 0.01, 16), told(0.1, 0.01, 16)), PolicyGuard::Verdict::kPublish);
}

TEST(PolicyGuard, EveryLookAsksForMoreUntilAPublication) {
  PolicyGuard guard;
  EXPECT_DOUBLE_EQ(guard.alpha_now(), 0.05 / 2);
  EXPECT_EQ(guard.judge(told(0.01, 0.01), told(0, 0)), PolicyGuard::Verdict::kGoOn);
  EXPECT_DOUBLE_EQ(guard.alpha_now(), 0.05 / 6);
  double sum = 0;
  PolicyGuard fresh;
  for (int i = 0; i < 1000; ++i) {
    sum += fresh.alpha_now();
    fresh.judge(told(0.0, 0.01), told(0, 0));
  }
  EXPECT_LT(sum, 0.05);
  guard.published();
  EXPECT_DOUBLE_EQ(guard.alpha_now(), 0.05 / 2);
}

TEST(PolicyGuard, ALookCountsOnlyOnceAQuarterMoreWasSeen) {
  PolicyGuard guard;
  earn(guard, 0.2, 64);
  guard.judge(told(0.0, 0.01), told(0, 0));
  const double alpha = guard.alpha_now();
  EXPECT_DOUBLE_EQ(alpha, 0.05 / 6);
  earn(guard, 0.2, 15);
  EXPECT_EQ(guard.judge(told(0.1, 0.01), told(0.1, 0.01)), PolicyGuard::Verdict::kGoOn);
  EXPECT_EQ(guard.judge(told(-0.1, 0.01), told(0, 0)), PolicyGuard::Verdict::kSetBack);
  EXPECT_EQ(guard.alpha_now(), alpha) << "nothing was spent";
  earn(guard, 0.2, 1);
  EXPECT_EQ(guard.judge(told(0.1, 0.01), told(0.1, 0.01)), PolicyGuard::Verdict::kPublish);
}

TEST(PolicyGuard, WhereTheSamePolicyEarnsLessTheWorldHasChanged) {
  PolicyGuard guard;
  EXPECT_EQ(earn(guard, 0.2, 60), 0);
  guard.judge(told(0.0, 0.01), told(0, 0));
  EXPECT_EQ(earn(guard, -0.3, 24), 1) << "seen within one and a half windows of 16 episodes";
  EXPECT_DOUBLE_EQ(guard.alpha_now(), 0.05 / 2) << "nothing is known of the new one";
  EXPECT_EQ(earn(guard, -0.3, 200), 0);
  EXPECT_EQ(earn(guard, 0.4, 200), 0) << "what earns more holds nothing up";
}

TEST(PolicyGuard, InAWorldThatStaysAChangeIsSeenInOneOfTwentyAtMost) {
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    PolicyGuard guard;
    for (std::uint64_t i = 0; i < 400; ++i) {
      const double steps = 5 + static_cast<double>(uniform_below(10, seed, 7, i));
      if (guard.earned(steps * (uniform01(seed, 8, i) - 0.4), static_cast<std::size_t>(steps))) {
        ++seen;
        break;
      }
    }
  }
  EXPECT_LE(seen, 16) << "10 expected at most, and two standard errors of their number";
}

TEST(PolicyGuard, AfterAChangeTheOneBeforeIsNotTakenBackForWhatItOnceEarned) {
  PolicyGuard guard;
  earn(guard, 0.4, 40);
  guard.published();
  earn(guard, 0.4, 32);
  EXPECT_GE(earn(guard, -0.3, 24), 1);
  EXPECT_FALSE(guard.reverts(told(0.01, 0.05)));
}

TEST(PolicyGuard, WhatIsWorseWhereTheBestActionIsTakenIsNotPublished) {
  PolicyGuard guard;
  EXPECT_EQ(guard.judge(told(0.1, 0.01), told(-0.03, 0.02)), PolicyGuard::Verdict::kGoOn);
  EXPECT_EQ(guard.judge(told(0.1, 0.01), told(0.0, 0.05)), PolicyGuard::Verdict::kGoOn)
      << "it may be worse by more than the tolerance";
  EXPECT_EQ(guard.judge(told(0.1, 0.01), told(0.0, 0.01)), PolicyGuard::Verdict::kPublish);
}

TEST(PolicyGuard, WhatIsWorseIsSetBack) {
  PolicyGuard guard;
  EXPECT_EQ(guard.judge(told(-0.05, 0.02), told(0, 0)), PolicyGuard::Verdict::kSetBack);
  EXPECT_EQ(guard.judge(told(-0.05, 0.05), told(0, 0)), PolicyGuard::Verdict::kGoOn);
}

TEST(PolicyGuard, WhatEarnsLessThanTheOneBeforeIsTakenBack) {
  PolicyGuard guard;
  earn(guard, 0.2, 40);
  guard.published();
  ASSERT_TRUE(guard.has_before());
  const auto blind = told(0.01, 0.05);  // the steps held out hardly say anything
  earn(guard, 0.05, 15);
  EXPECT_FALSE(guard.reverts(blind)) << "too few to tell";
  earn(guard, 0.05, 3);
  EXPECT_TRUE(guard.reverts(blind));
  guard.reverted();
  EXPECT_FALSE(guard.has_before()) << "there is no going back further";
}

TEST(PolicyGuard, WhatEarnsAsMuchStaysHoweverOftenItLooks) {
  PolicyGuard guard;
  earn(guard, 0.2, 40);
  guard.published();
  for (int i = 0; i < 60; ++i) {
    earn(guard, 0.2, 1);
    EXPECT_FALSE(guard.reverts(told(0.01, 0.05)));
  }
}

TEST(PolicyGuard, WhereTheOneBeforeWouldEarnLessStillTheWorldHasChangedAndNothingIsTakenBack) {
  PolicyGuard guard;
  earn(guard, 0.2, 40);
  guard.published();
  earn(guard, -0.3, 40);
  EXPECT_FALSE(guard.reverts(told(-0.02, 0.02)));
}

TEST(PolicyGuard, AfterItsProbationOnlyTheSameStepsTellOfTheOneBefore) {
  PolicyGuard guard;
  earn(guard, 0.2, 40);
  guard.published();
  earn(guard, 0.2, 65);
  earn(guard, -0.3, 200);
  EXPECT_FALSE(guard.reverts(told(0.01, 0.05)));
  EXPECT_TRUE(guard.reverts(told(0.1, 0.01))) << "better on the steps held out since";
}

TEST(PolicyGuard, FewStepsOfAPolicyThatWasNeverSeenCountForLittle) {
  EXPECT_LT(drawn(logged(0.99, 0.01, 200)).effective_steps, 10);
}

TEST(PolicyGuard, LeavesOutWhatIsNotFiniteAndSaysNothingOfNothing) {
  auto steps = logged(0.3, 0.8, 100);
  steps[3].reward = std::numeric_limits<float>::quiet_NaN();
  steps[4].acting[steps[4].action] = -std::numeric_limits<float>::infinity();
  steps[5].other[0] = std::numeric_limits<float>::quiet_NaN();
  steps[6].other = {0.0f, -std::numeric_limits<float>::infinity()};  // never taken: that is known
  steps[7].action = 2;
  steps[8].other.pop_back();
  const auto found = drawn(steps);
  EXPECT_EQ(found.steps, 95u);
  EXPECT_TRUE(std::isfinite(found.value_new));
  const auto none = drawn({});
  EXPECT_EQ(none.lower(0.05), -kInfinite);
  EXPECT_EQ(none.upper(0.05), kInfinite);
  PolicyGuard guard;
  EXPECT_EQ(guard.judge(none, none), PolicyGuard::Verdict::kGoOn);
  guard.earned(std::numeric_limits<double>::quiet_NaN(), 10);
  guard.earned(1.0, 0);
}

// By numerical integration of the density.
TEST(PolicyGuard, KnowsStudentsDistribution) {
  EXPECT_NEAR(student_quantile(0.05, 1), 6.3138, 1e-4);
  EXPECT_NEAR(student_quantile(0.01, 2), 6.9646, 1e-4);
  EXPECT_NEAR(student_quantile(0.05, 15), 1.75305, 1e-4);
  EXPECT_NEAR(student_quantile(0.001, 15), 3.73283, 1e-3);
  EXPECT_NEAR(student_quantile(2e-5, 15), 5.72750, 2e-3);
  EXPECT_NEAR(student_quantile(1e-4, 40), 4.09421, 1e-4);
  EXPECT_EQ(student_quantile(0.05, 0), kInfinite);
}

}  // namespace
}  // namespace memslot
