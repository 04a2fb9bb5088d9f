#include "rl/online_learner.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/rl/episodes.h"
#include "tests/rl/live_world.h"

namespace memslot {
namespace {

using testing_support::LiveWorld;

// Trained once for all tests: they change copies.
const GainTable& world() {
  static const GainTable table = testing_support::SyntheticTable().take();
  return table;
}
const Checkpoint& policy() {
  static const Checkpoint trained = testing_support::trained_policy(world());
  return trained;
}

TEST(OnlineLearner, RecoversFourFifthsOfAShiftsLossWithinThreeHundredSessions) {
  const GainTable shifted = testing_support::stale(world());
  LiveWorld live(shifted, policy());
  const double before = live.worth();
  const double drawn_before = live.worth_drawn();
  ASSERT_LT(before, -0.2) << "the shift costs the old policy at least 0.2 nats against base";
  for (std::uint64_t s = 0; s < 300; ++s) live.session(s);
  std::printf("before %.3f after %.3f, %llu snapshots\n", before, live.worth(),
              static_cast<unsigned long long>(live.learner().counts().snapshots));
  EXPECT_GT(live.worth(), 0.2 * before) << "from " << before;
  EXPECT_GT(live.worth_drawn(), 0.2 * drawn_before) << "from " << drawn_before;
  EXPECT_GE(live.learner().counts().snapshots, 1u);
}

TEST(OnlineLearner, InAWorldThatStaysItStaysAsGood) {
  LiveWorld live(world(), policy());
  const double before = live.worth();
  for (std::uint64_t s = 0; s < 150; ++s) live.session(s);
  EXPECT_GT(live.worth(), before - 0.02) << "from " << before;
}

TEST(OnlineLearner, RandomFeedbackDoesNotGetPastTheGuard) {
  LiveWorld live(world(), policy());
  const double before = live.worth(), drawn_before = live.worth_drawn();
  for (std::uint64_t s = 0; s < 300; ++s) {
    // Of every four sessions one is read and measured; the others are judged by a coin.
    const bool measured = s % 4 == 0;
    const float coin = uniform01(5, 6, s) < 0.5 ? -1.0f : 1.0f;
    live.session(s, measured ? std::nullopt : std::optional(coin));
  }
  std::printf("before %.3f (drawn %.3f) after %.3f (drawn %.3f), %llu snapshots\n", before,
              drawn_before, live.worth(), live.worth_drawn(),
              static_cast<unsigned long long>(live.learner().counts().snapshots));
  EXPECT_GT(live.worth_drawn(), drawn_before - 0.02);
  EXPECT_GT(live.worth(), before - 0.02);
}

TEST(OnlineLearner, OnFeedbackAloneNothingIsPublished) {
  LiveWorld live(world(), policy());
  for (std::uint64_t s = 0; s < 60; ++s) live.session(s, -1.0f);
  EXPECT_EQ(live.learner().counts().snapshots, 0u);
  EXPECT_GT(live.learner().counts().updates, 0u);
  EXPECT_EQ(live.acting().digest(), policy().digest());
}

TEST(OnlineLearner, TheSameEpisodesGiveTheSamePolicyBitForBit) {
  const GainTable shifted = testing_support::stale(world());
  LiveWorld a(shifted, policy()), b(shifted, policy());
  for (std::uint64_t s = 0; s < 60; ++s) {
    a.session(s);
    b.session(s);
  }
  EXPECT_EQ(a.acting().digest(), b.acting().digest());
  EXPECT_EQ(a.learner().counts().mean_return, b.learner().counts().mean_return);
}

TEST(OnlineLearner, AnEpisodeWithNaNOrOfOtherSizesIsRefusedAndNothingIsLearnedFromIt) {
  auto learner = OnlineLearner::make(policy(), torch_engine()).value();
  Episode bad = testing_support::random_episode(3, 4, policy().scorer.key_dim);
  bad.steps[2].reward = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(learner->add(bad, true).error().code, ErrorCode::kInvalidArgument);
  bad = testing_support::random_episode(3, 4, policy().scorer.key_dim);
  bad.steps[1].features[0] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(learner->add(bad, false).error().code, ErrorCode::kInvalidArgument);
  bad = testing_support::random_episode(3, 4, policy().scorer.key_dim + 1);
  EXPECT_EQ(learner->add(bad, true).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(learner->counts().refused, 3u);
  EXPECT_EQ(learner->counts().episodes + learner->counts().held_out, 0u);
}

TEST(OnlineLearner, StepsThatWereNotThePolicysTrainNothing) {
  auto learner = OnlineLearner::make(policy(), torch_engine()).value();
  for (std::uint64_t i = 0; i < 40; ++i) {
    Episode overridden = testing_support::random_episode(i, 4, policy().scorer.key_dim);
    for (EpisodeStep& step : overridden.steps) step.trains = false;
    ASSERT_TRUE(learner->add(overridden, true));
  }
  EXPECT_EQ(learner->counts().updates, 0u);
  EXPECT_EQ(learner->counts().episodes + learner->counts().held_out, 0u);
}

TEST(OnlineLearner, WithoutAnEngineItIsNotSupported) {
  EXPECT_EQ(OnlineLearner::make(policy(), {}).error().code, ErrorCode::kNotSupported);
}

}  // namespace
}  // namespace memslot
