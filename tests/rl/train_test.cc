#include "rl/train.h"

#include <gtest/gtest.h>

#include <limits>

#include "rl/features.h"
#include "tests/rl/synthetic_table.h"

namespace memslot {
namespace {

TrainOptions quick(std::uint64_t seed) {
  TrainOptions o;
  o.reinforce.seed = seed;
  o.env.candidates = 8;
  o.hidden = 24;
  o.streams = 8;
  o.updates = 120;
  o.imitation = 20;
  o.reinforce.learning_rate = 5e-3f;
  return o;
}

Score tested(const GainTable& table, const TrainOptions& options, const Checkpoint& checkpoint) {
  const StreamEnv env(table, options.env);
  return evaluate(env, Split::kTest,
                  *policy_selector("policy", make_learned_policy(checkpoint).value()));
}

TEST(Train, ComesCloseToTheLaggedOracleOnSourcesItHasNotSeen) {
  const GainTable table = testing_support::SyntheticTable().take();
  const TrainOptions options = quick(1);
  const auto trained = train(table, options);
  ASSERT_TRUE(trained) << trained.error().message;
  const StreamEnv env(table, options.env);
  const Score policy = tested(table, options, trained.value().best);
  const Score lagged = evaluate(env, Split::kTest, *lagged_oracle_selector());
  const Score nearest = evaluate(env, Split::kTest, *nearest_selector(0.3f));
  EXPECT_GE(policy.mean_gain, 0.95 * lagged.mean_gain);
  EXPECT_GT(policy.mean_gain, nearest.mean_gain);
  RecordProperty("policy", std::to_string(policy.mean_gain));
  RecordProperty("lagged_oracle", std::to_string(lagged.mean_gain));
  std::printf("policy %.3f nearest %.3f lagged oracle %.3f oracle %.3f abstention %.2f\n",
              policy.mean_gain, nearest.mean_gain, lagged.mean_gain,
              evaluate(env, Split::kTest, *oracle_selector()).mean_gain, policy.abstention);
}

// Before it has learned anything it chooses as nearest key does, with a threshold from validation.
TEST(Train, BeginsAsNearestKeyWithAThreshold) {
  const GainTable table = testing_support::SyntheticTable().take();
  TrainOptions options = quick(1);
  options.imitation = options.updates = 0;
  ASSERT_GT(options.reinforce.prior.sharpness, 0.0f);
  const Checkpoint begun = train(table, options).value().best;
  const auto& linear = begun.tensors.at("scorer.linear").values;
  float threshold = 0;
  for (std::size_t i = 0; i < linear.size(); ++i) {
    if (feature_table()[i].name == "is_base") {
      threshold = linear[i] / options.reinforce.prior.sharpness;
    }
  }
  EXPECT_GT(threshold, 0.0f);
  EXPECT_LT(threshold, 1.0f);
  const StreamEnv env(table, options.env);
  const Score policy = tested(table, options, begun);
  const Score nearest = evaluate(env, Split::kTest, *nearest_selector(threshold));
  EXPECT_NEAR(policy.mean_gain, nearest.mean_gain, 1e-3);
  EXPECT_NEAR(policy.base_share, nearest.base_share, 0.01);
}

TrainOptions brief(std::uint64_t seed) {
  TrainOptions o = quick(seed);
  o.env.candidates = 5;
  o.hidden = 8;
  o.streams = 2;
  o.rollouts = 2;
  o.updates = 40;
  o.imitation = 5;
  return o;
}

GainTable small_table() {
  return testing_support::SyntheticTable({.train = 4, .streams_each = 2}).take();
}

// Up to `updates` optimizer steps after the warm start, or to its end.
Checkpoint trained_for(Training& training, std::uint64_t updates) {
  while (!training.done() && training.updates() < updates) EXPECT_TRUE(training.advance());
  return training.state();
}

TEST(Train, TheSameSeedGivesTheSameBitsAndAnotherDoesNot) {
  const GainTable table = small_table();
  TrainOptions options = brief(3);
  options.updates = 20;
  const auto bytes = [&] { return train(table, options).value().state.bytes(); };
  const std::string first = bytes();
  EXPECT_EQ(bytes(), first);
  options.reinforce.seed = 4;
  EXPECT_NE(bytes(), first);
}

// Interrupted anywhere: in the warm start, between looks, at a look.
TEST(Train, FortyUpdatesAreTwentyAndAResumeBitForBit) {
  const GainTable table = small_table();
  const auto whole = train(table, brief(2)).value();
  for (const std::uint64_t at : {0, 13, 20}) {
    const auto first = Training::begin(table, "", brief(2)).value();
    if (at == 0) {
      ASSERT_TRUE(first->advance());
      ASSERT_LT(first->imitated(), 5u);
    }
    const Checkpoint kept = Checkpoint::parse(trained_for(*first, at).bytes()).value();
    const auto second = Training::begin(table, "", brief(2), &kept).value();
    while (!second->done()) ASSERT_TRUE(second->advance());
    EXPECT_EQ(second->state().bytes(), whole.state.bytes()) << "interrupted at " << at;
    EXPECT_EQ(second->best().bytes(), whole.best.bytes()) << "interrupted at " << at;
  }
}

// A controller refuses a policy of another model or slot by these.
TEST(Train, CheckpointsSayWhatTheyWereTrainedFor) {
  GainTable table = small_table();
  table.model = std::string(64, 'a');
  table.layer = 22;
  for (float& gain : table.gain.values) gain += 0.5f;  // else the generic one is nothing
  TrainOptions options = brief(3);
  options.updates = 20;
  options.env.window_tokens = 48;
  options.env.swap_cost = 0.125f;
  const TrainResult trained = train(table, options).value();
  for (const Checkpoint* c : {&trained.best, &trained.state}) {
    EXPECT_EQ(c->task.model, table.model);
    EXPECT_EQ(c->task.layer, 22);
    EXPECT_EQ(c->task.window_tokens, 48u);
    EXPECT_EQ(c->task.candidates, 5u);
    EXPECT_EQ(c->task.swap_cost, 0.125f);
    EXPECT_GT(c->task.generic_gain, 0.1f);
  }
  options.updates = 40;
  const auto resumed = Training::begin(table, "", options, &trained.state);
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_EQ(resumed.value()->best().task, trained.best.task);
}

TEST(Train, AShorterTrainingGoesOnWhenItIsAllowedMore) {
  const GainTable table = small_table();
  TrainOptions options = brief(2);
  const auto whole = train(table, options).value();
  options.updates = 20;
  const Checkpoint state = train(table, options).value().state;
  EXPECT_EQ(state.update, 25u);  // with the warm start
  options.updates = 40;
  const auto more = Training::begin(table, "", options, &state).value();
  ASSERT_FALSE(more->done());
  while (!more->done()) ASSERT_TRUE(more->advance());
  EXPECT_EQ(more->best().bytes(), whole.best.bytes());
}

TEST(Train, AStateOfAnotherTrainingIsRefused) {
  const GainTable table = small_table();
  TrainOptions options = brief(2);
  options.updates = 20;
  const Checkpoint state = train(table, options).value().state;
  const auto code = [&](const std::string& digest, const TrainOptions& o, const Checkpoint& c) {
    const auto begun = Training::begin(table, digest, o, &c);
    return begun ? ErrorCode{} : begun.error().code;
  };
  EXPECT_EQ(code("another table", options, state), ErrorCode::kMismatch);
  TrainOptions other = options;
  other.reinforce.gamma = 0.25f;
  EXPECT_EQ(code("", other, state), ErrorCode::kMismatch);
  for (float* value : {&other.reinforce.averaging, &other.hide_source, &other.hide_memory}) {
    other = options;
    *value += 0.01f;
    EXPECT_EQ(code("", other, state), ErrorCode::kMismatch);
  }
  other = options;
  other.reinforce.seed = 3;
  EXPECT_EQ(code("", other, state), ErrorCode::kMismatch);
  Checkpoint without = state;
  without.tensors.erase("adam.first.scorer.w1");
  EXPECT_EQ(code("", options, without), ErrorCode::kCorruption);
  without = state;
  without.notes.erase("worse");
  EXPECT_EQ(code("", options, without), ErrorCode::kCorruption);
}

TEST(Train, EndsEarlyWhereValidationGetsNoBetter) {
  const GainTable table = small_table();
  TrainOptions options = brief(1);
  options.reinforce.learning_rate = 1e-7f;  // nothing moves
  options.updates = 1000;
  options.look_every = 2;
  options.patience = 3;
  const auto trained = train(table, options).value();
  EXPECT_LT(trained.curve.size(), 20u);
  EXPECT_FALSE(trained.curve.back().best);
}

TEST(Train, BothBaselinesLearn) {
  const GainTable table = testing_support::SyntheticTable().take();
  for (const Baseline baseline : {Baseline::kLeaveOneOut, Baseline::kValue}) {
    TrainOptions options = quick(1);
    options.imitation = 0;
    options.env.margin = 0;
    options.reinforce.prior = {};  // from nothing
    options.reinforce.baseline = baseline;
    const auto curve = train(table, options).value().curve;
    double best = -1e9;
    for (const TrainPoint& point : curve) best = std::max(best, point.validation.mean_gain);
    EXPECT_GT(best, curve.front().validation.mean_gain + 0.1) << static_cast<int>(baseline);
  }
}

TEST(Train, WithOneMemoryThereIsStillAChoiceToLearn) {
  const GainTable table =
      testing_support::SyntheticTable({.train = 1, .validation = 0, .test = 0, .memories_each = 1})
          .take();
  ASSERT_EQ(table.memories.size(), 1u);
  TrainOptions options = brief(1);
  options.updates = 20;
  const auto trained = train(table, options);
  ASSERT_TRUE(trained) << trained.error().message;
}

TEST(Train, WhereAllMemoriesAreEqualNothingBreaks) {
  GainTable table = small_table();
  std::fill(table.gain.values.begin(), table.gain.values.end(), 0.5f);
  std::fill(table.keys.values.begin(), table.keys.values.end(), 1.0f);
  TrainOptions options = brief(1);
  options.updates = 20;
  const auto alike = train(table, options);
  ASSERT_TRUE(alike) << alike.error().message;
  std::fill(table.hidden.values.begin(), table.hidden.values.end(), 1.0f);
  const auto refused = train(table, options);  // equal text has no direction
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  GainTable equal = small_table();
  std::fill(equal.gain.values.begin(), equal.gain.values.end(), 0.5f);
  const auto trained = train(equal, options);
  ASSERT_TRUE(trained) << trained.error().message;
  EXPECT_NEAR(trained.value().curve.back().validation.mean_gain, 0.0, 1e-6);
}

TEST(Train, AnEmptyTableIsRefused) {
  GainTable table = testing_support::SyntheticTable().take();
  for (TableSource& s : table.sources) s.split = Split::kTest;
  for (TableStream& s : table.streams) s.split = Split::kTest;
  const auto refused = train(table, quick(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST(Train, ALookTellsHowOftenControlTextIsLeftToBase) {
  TrainOptions options = brief(1);
  options.updates = 0;
  const auto looked = [&](bool all_kinds) {
    const GainTable table =
        testing_support::SyntheticTable({.streams_each = 2, .all_kinds = all_kinds}).take();
    return train(table, options).value().curve.front();
  };
  EXPECT_FALSE(looked(false).control_base);
  const TrainPoint point = looked(true);
  ASSERT_TRUE(point.control_base);
  EXPECT_GT(*point.control_base, point.validation.base_share);  // no memory is like it
  EXPECT_LE(*point.control_base, 1.0);
}

TEST(Train, ATableWithoutKeysOfTrainingMemoriesIsRefused) {
  GainTable table = small_table();
  for (TableMemory& m : table.memories) m.keys = 0;
  const auto refused = train(table, brief(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("keys"), std::string::npos);
}

// With every memory hidden only base is left to earn from, and it earns nothing.
TEST(Train, HiddenMemoriesAreNotChosenInRollouts) {
  const GainTable table = small_table();
  TrainOptions options = brief(1);
  options.imitation = 0;
  options.updates = 20;
  const auto report = [&] { return train(table, options).value().curve.back().report; };
  options.hide_source = options.hide_memory = 0.0f;
  EXPECT_NE(report().mean_reward, 0.0);
  options.hide_source = 1.0f;  // every memory of this table has a source
  EXPECT_EQ(report().mean_reward, 0.0);
  EXPECT_EQ(report().entropy, 0.0);
  options.hide_source = 0.0f;
  options.hide_memory = 1.0f;
  EXPECT_EQ(report().mean_reward, 0.0);
  options.hide_memory = 0.5f;
  EXPECT_NE(report().mean_reward, 0.0);
}

TEST(Train, OptionsThatAreNoNumbersOrOutOfBoundsAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto refused = [](auto change) {
    TrainOptions o;
    change(o);
    const Status status = check_options(o);
    return !status && status.error().code == ErrorCode::kInvalidArgument;
  };
  EXPECT_TRUE(check_options({}));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.reinforce.learning_rate = nan; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.reinforce.gamma = 1.5f; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.reinforce.gamma = nan; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.reinforce.entropy_bonus = -0.1f; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.env.swap_cost = nan; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.env.margin = nan; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.env.candidates = 1; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.env.candidates = 33; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.rollouts = 1; }));  // RLOO needs another
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.look_every = 0; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.reinforce.averaging = 1.0f; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.hide_source = 1.5f; }));
  EXPECT_TRUE(refused([&](TrainOptions& o) { o.hide_memory = nan; }));
}

}  // namespace
}  // namespace memslot
