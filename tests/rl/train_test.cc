#include "rl/train.h"

#include <gtest/gtest.h>

#include "tests/rl/synthetic_table.h"

namespace memslot {
namespace {

TrainOptions quick(std::uint64_t seed) {
  TrainOptions o;
  o.reinforce.seed = seed;
  o.env.candidates = 12;
  o.updates = 120;
  o.imitation = 60;
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
  const auto trained = train(table, options, nullptr);
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

TEST(Train, TheSameSeedGivesTheSameBitsAndAnotherDoesNot) {
  const GainTable table = testing_support::SyntheticTable({.train = 4, .streams_each = 2}).take();
  TrainOptions options = quick(3);
  options.updates = 20;
  options.imitation = 5;
  const auto bytes = [&] { return train(table, options, nullptr).value().resume.bytes(); };
  const std::string first = bytes();
  EXPECT_EQ(bytes(), first);
  options.reinforce.seed = 4;
  EXPECT_NE(bytes(), first);
}

TEST(Train, AnEmptyTableIsRefused) {
  GainTable table = testing_support::SyntheticTable().take();
  for (TableSource& s : table.sources) s.split = Split::kTest;
  for (TableStream& s : table.streams) s.split = Split::kTest;
  const auto refused = train(table, quick(1), nullptr);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST(Train, StopsWhereItIsTold) {
  const GainTable table = testing_support::SyntheticTable({.train = 3, .streams_each = 2}).take();
  TrainOptions options = quick(1);
  options.imitation = 0;
  int looks = 0;
  const auto trained = train(table, options, [&](const TrainPoint&) { return ++looks < 2; });
  ASSERT_TRUE(trained);
  EXPECT_EQ(trained.value().curve.size(), 2u);
  EXPECT_EQ(trained.value().resume.update, options.look_every);
}

}  // namespace
}  // namespace memslot
