#include "rl/online_learner.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "tests/rl/episodes.h"
#include "tests/rl/live_world.h"

namespace memslot {
namespace {

using testing_support::LiveWorld;

// A world and a policy that offline training left in it, for each seed. Made once: tests change
// copies.
struct World {
  GainTable table, two_kinds;
  Checkpoint policy, policy_of_two_kinds;
};
const World& world_of(std::uint64_t seed) {
  static std::map<std::uint64_t, World> made;
  World& world = made[seed];
  if (!world.table.memories.empty()) return world;
  testing_support::SyntheticOptions options;
  options.seed = seed;
  world.table = testing_support::SyntheticTable(options).take();
  world.two_kinds = testing_support::with_two_kinds(world.table);
  world.policy = testing_support::trained_policy(world.table, seed);
  world.policy_of_two_kinds = testing_support::trained_policy(world.two_kinds, seed);
  return world;
}
const GainTable& world() { return world_of(1).table; }
const Checkpoint& policy() { return world_of(1).policy; }

void print(const char* what, double before, const LiveWorld& live) {
  const OnlineCounts& c = live.learner().counts();
  std::printf(
      "%s: %.3f -> %.3f (drawn %.3f), %llu snapshots, %llu reverts, %llu shifts\n", what, before,
      live.worth(), live.worth_drawn(), static_cast<unsigned long long>(c.snapshots),
      static_cast<unsigned long long>(c.reverts), static_cast<unsigned long long>(c.shifts));
}

// Gains are nats per token of the best actions on streams of sources that no session had.
struct OnlineWorlds : testing::TestWithParam<std::uint64_t> {
  const World& made = world_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Seeds, OnlineWorlds, testing::Values(1, 2, 3));

TEST_P(OnlineWorlds, RecoversFourFifthsOfAShiftsLossWithinThreeHundredSessions) {
  const GainTable shifted = testing_support::stale(made.table);
  LiveWorld live(shifted, made.policy);
  const double before = live.worth();
  const double drawn_before = live.worth_drawn();
  ASSERT_LT(before, -0.2) << "the shift costs the old policy at least 0.2 nats against base";
  for (std::uint64_t s = 0; s < 300; ++s) live.session(s);
  print("stale", before, live);
  EXPECT_GT(live.worth(), 0.2 * before) << "from " << before;
  EXPECT_GT(live.worth_drawn(), 0.2 * drawn_before) << "from " << drawn_before;
  EXPECT_GE(live.learner().counts().snapshots, 1u);
}

// Harder: what is right after the shift is not to abstain, but the other memories. The loss is
// against what offline training makes of the new world, with five times the updates.
TEST_P(OnlineWorlds, RecoversFourFifthsWhereTheMemoriesOfOneKindStillHelp) {
  const GainTable shifted = testing_support::one_kind_stale(made.two_kinds);
  const double best =
      LiveWorld(shifted, testing_support::trained_policy(shifted, GetParam(), 200)).worth();
  LiveWorld live(shifted, made.policy_of_two_kinds);
  const double before = live.worth();
  ASSERT_LT(before, best - 0.2) << "the shift costs the old policy at least 0.2 nats";
  for (std::uint64_t s = 0; s < 300; ++s) live.session(s);
  std::printf("offline %.3f; ", best);
  print("one kind stale", before, live);
  EXPECT_GT(live.worth(), best - 0.2 * (best - before)) << "from " << before;
}

TEST_P(OnlineWorlds, RecoversFromAShiftWhileItRuns) {
  const GainTable shifted = testing_support::stale(made.table);
  LiveWorld live(made.table, made.policy);
  for (std::uint64_t s = 0; s < 100; ++s) live.session(s);
  live.becomes(shifted);
  const double before = live.worth();
  ASSERT_LT(before, -0.2);
  for (std::uint64_t s = 100; s < 400; ++s) live.session(s);
  print("stale after 100 sessions", before, live);
  EXPECT_GT(live.worth(), 0.2 * before) << "from " << before;
}

TEST_P(OnlineWorlds, InAWorldThatStaysItStaysAsGood) {
  LiveWorld live(made.table, made.policy);
  const double before = live.worth();
  for (std::uint64_t s = 0; s < 300; ++s) {
    live.session(s);
    if (s == 149) {
      EXPECT_GT(live.worth(), before - 0.02) << "from " << before;
    }
  }
  print("stays", before, live);
  EXPECT_GT(live.worth(), before - 0.02) << "from " << before;
}

TEST_P(OnlineWorlds, RandomFeedbackDoesNotGetPastTheGuard) {
  // Of every four or two sessions one is read and measured; the others are judged by a coin. Of
  // four, the guard has hardly seen enough to publish; of two, it has.
  for (const std::uint64_t every : {4u, 2u}) {
    LiveWorld live(made.table, made.policy);
    const double before = live.worth(), drawn_before = live.worth_drawn();
    for (std::uint64_t s = 0; s < 300; ++s) {
      const bool measured = s % every == 0;
      const float coin = uniform01(5, 6, s) < 0.5 ? -1.0f : 1.0f;
      live.session(s, measured ? std::nullopt : std::optional(coin));
    }
    print("random feedback", before, live);
    EXPECT_GT(live.worth_drawn(), drawn_before - 0.02);
    EXPECT_GT(live.worth(), before - 0.02);
    EXPECT_GT(live.learner().counts().updates, 0u);
  }
}

// The guard would not have let it pass: it never loads a memory.
TEST_P(OnlineWorlds, ABadPolicyThatWasPublishedIsTakenBackToTheLastGoodOne) {
  LiveWorld live(made.table, made.policy);
  std::uint64_t s = 0;
  while (s < 60) live.session(s++);
  const Checkpoint good = live.acting();
  live.publish(
      testing_support::trained_policy(testing_support::stale(made.table), GetParam(), 100));
  ASSERT_LT(live.worth(), 0.02);
  while (s < 160 && live.learner().counts().reverts == 0) live.session(s++);
  EXPECT_EQ(live.learner().counts().reverts, 1u);
  EXPECT_EQ(live.acting().digest(), good.digest());
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

TEST(OnlineLearner, StepsThatWereNotThePolicysAreNotTheGuardsEither) {
  auto learner = OnlineLearner::make(policy(), torch_engine()).value();
  const auto acting = ReinforceLearner::go_on_from(policy(), {}).value();
  for (std::uint64_t i = 0; i < 16; ++i) {
    Episode episode = testing_support::random_episode(i, 6, policy().scorer.key_dim);
    const auto log_probs = acting->log_probs(episode.steps).value();
    for (std::size_t t = 0; t < episode.steps.size(); ++t) {
      episode.steps[t].log_prob = log_probs[t][episode.steps[t].action];
      episode.steps[t].trains = t % 3 != 0;  // every third was pinned
    }
    ASSERT_TRUE(learner->add(std::move(episode), true));
  }
  ASSERT_TRUE(learner->last_look().has_value());
  EXPECT_EQ(learner->counts().held_out, 4u);
  EXPECT_EQ(learner->last_look()->steps, 4u * 4u);
}

TEST(OnlineLearner, AnEpisodeThatAnotherPolicyDrewTrainsButIsNotTheGuards) {
  auto learner = OnlineLearner::make(policy(), torch_engine()).value();
  for (std::uint64_t i = 0; i < 8; ++i) {  // uniform choices: not what the policy would draw
    ASSERT_TRUE(learner->add(testing_support::random_episode(i, 6, policy().scorer.key_dim), true));
  }
  EXPECT_EQ(learner->counts().held_out, 0u);
  EXPECT_EQ(learner->counts().episodes, 8u);
}

TEST(OnlineLearner, WithoutAnEngineItIsNotSupported) {
  EXPECT_EQ(OnlineLearner::make(policy(), {}).error().code, ErrorCode::kNotSupported);
}

}  // namespace
}  // namespace memslot
