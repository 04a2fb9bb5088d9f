#include "rl/stream_env.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "rl/evaluate.h"
#include "tests/rl/synthetic_table.h"

namespace memslot {
namespace {

struct StreamEnvTest : testing::Test {
  GainTable table = testing_support::SyntheticTable().take();
  StreamEnv env{table, {.candidates = 6, .window_tokens = 32, .swap_cost = 0.05f}};
};

TEST_F(StreamEnvTest, CandidatesAreBaseTheCurrentOneAndTheNearest) {
  const EnvState state{.active = 5, .steps_since_swap = 2};
  const EnvDecision d = env.decision(0, 3, state);
  ASSERT_EQ(d.actions.size(), 6u);
  EXPECT_EQ(d.actions[0], kBaseAction);
  EXPECT_TRUE(d.candidates[0].is_base);
  EXPECT_EQ(d.actions[1], 5);
  EXPECT_TRUE(d.candidates[1].is_current);
  EXPECT_EQ(d.candidates[1].swap_cost, 0.0f);
  EXPECT_EQ(d.candidates[2].swap_cost, 0.05f);
  EXPECT_EQ(d.context.steps_since_swap, 2u);
  // No memory outside the list is nearer than one of the nearest in it.
  float least = 1;
  for (std::size_t i = 2; i < d.actions.size(); ++i)
    least = std::min(least, d.candidates[i].best_key);
  for (std::size_t m = 0; m < table.memories.size(); ++m) {
    if (std::count(d.actions.begin(), d.actions.end(), static_cast<std::int32_t>(m)) > 0) continue;
    EXPECT_LE(env.best_key(0, 3, m), least);
  }
}

TEST_F(StreamEnvTest, WhatWasNotScoredIsNeverACandidateNorTheOracles) {
  GainTable some = table;
  for (TableStream& s : some.streams) s.scored = {1, 4, 6, 9, 12, 20, 21, 30};
  for (TableStream& s : some.streams) {
    for (const std::uint32_t m : some.generic) s.scored.push_back(m);
    std::sort(s.scored.begin(), s.scored.end());
    s.scored.erase(std::unique(s.scored.begin(), s.scored.end()), s.scored.end());
  }
  const StreamEnv part(some, env.options());
  const auto random = random_selector(3);
  for (std::size_t step = 1; step < some.streams[2].steps.size(); ++step) {
    const EnvDecision d = part.decision(2, step, {});
    EXPECT_EQ(d.actions.size(), 6u);
    for (std::size_t i = 1; i < d.actions.size(); ++i)
      EXPECT_TRUE(some.streams[2].has(static_cast<std::size_t>(d.actions[i])));
    for (const std::int32_t m : {part.oracle(2, step), random->choose(part, 2, step, {})})
      EXPECT_TRUE(m == kBaseAction || some.streams[2].has(static_cast<std::size_t>(m)));
  }
}

TEST_F(StreamEnvTest, WhatIsHiddenIsLeftOutAndTheNextNearestMoveUp) {
  const EnvDecision all = env.decision(0, 3, {.active = 5});
  std::vector<char> hidden(table.memories.size());
  EXPECT_EQ(env.decision(0, 3, {.active = 5}, hidden).actions, all.actions);
  hidden[5] = 1;
  for (std::size_t i = 2; i < 5; ++i) hidden[static_cast<std::size_t>(all.actions[i])] = 1;
  const EnvDecision some = env.decision(0, 3, {.active = 5}, hidden);
  ASSERT_EQ(some.actions.size(), 6u);
  EXPECT_EQ(some.actions[1], all.actions[5]);
  float least = 1;
  for (std::size_t i = 1; i < some.actions.size(); ++i) {
    const auto m = static_cast<std::size_t>(some.actions[i]);
    EXPECT_EQ(hidden[m], 0);
    hidden[m] = 1;
    least = std::min(least, some.candidates[i].best_key);
  }
  for (std::size_t m = 0; m < hidden.size(); ++m) {
    if (hidden[m] != 0) continue;
    EXPECT_LE(env.best_key(0, 3, m), least) << m;
  }
}

TEST_F(StreamEnvTest, TheLongerWindowIsComparedAsAQueryOfItsLengthWouldBe) {
  EnvOptions options = env.options();
  options.window_tokens = 16;
  options.long_window_tokens = 48;
  const StreamEnv both(table, options);
  options.window_tokens = 48;
  const StreamEnv longer(table, options);
  std::size_t others = 0;
  for (const std::size_t step : {1u, 2u, 5u, 7u}) {
    const EnvDecision d = both.decision(1, step, {});
    for (std::size_t i = 1; i < d.actions.size(); ++i) {
      const auto m = static_cast<std::size_t>(d.actions[i]);
      EXPECT_EQ(d.candidates[i].best_key, both.best_key(1, step, m));
      EXPECT_EQ(d.candidates[i].long_key, longer.best_key(1, step, m));
      others += d.candidates[i].long_key != d.candidates[i].best_key ? 1 : 0;
    }
  }
  EXPECT_GT(others, 0u);
}

TEST_F(StreamEnvTest, BeforeTheFirstSummaryThereIsOnlyBaseAndNothingIsKnown) {
  const EnvDecision d = env.decision(0, 0, {});
  EXPECT_EQ(d.actions, std::vector<std::int32_t>{kBaseAction});
  EXPECT_TRUE(d.context.query.empty());
  EXPECT_EQ(d.context.surprise, 0.0f);
}

// The choices and the numbers of StepLoopTest's test of that name: a generator's observations.
TEST_F(StreamEnvTest, StepsAreCountedFromTheLastSwapOn) {
  EnvState state;
  std::vector<std::uint32_t> counted;
  for (const std::int32_t action : {3, 3, 4, kBaseAction, 4, 4}) {
    counted.push_back(env.decision(0, counted.size(), state).context.steps_since_swap);
    state = env.after(state, action);
  }
  EXPECT_EQ(counted, (std::vector<std::uint32_t>{1, 1, 2, 1, 1, 1}));
}

TEST_F(StreamEnvTest, EntropyAndSurpriseAreThoseOfWhatWasActive) {
  const std::size_t columns = table.memories.size() + 1;
  const std::uint64_t before = env.row(2, 3);
  EXPECT_EQ(env.decision(2, 4, {}).context.surprise, table.surprise.values[before * columns]);
  EXPECT_EQ(env.decision(2, 4, {.active = 7}).context.surprise,
            table.surprise.values[before * columns + 8]);
}

TEST_F(StreamEnvTest, TheQueryIsOfWhatCameBeforeTheStep) {
  GainTable other = table;
  const std::uint64_t at = env.row(1, 4);
  for (std::uint32_t d = 0; d < table.dim(); ++d) other.hidden.values[at * table.dim() + d] = 99;
  const StreamEnv changed(other, env.options(), env.whitening());
  const auto query = [](const StreamEnv& e, std::size_t step) {
    const auto q = e.decision(1, step, {}).context.query;
    return std::vector<float>(q.begin(), q.end());
  };
  EXPECT_EQ(query(env, 4), query(changed, 4));
  EXPECT_NE(query(env, 5), query(changed, 5));
}

TEST_F(StreamEnvTest, RewardIsNetGainLessTheSwap) {
  const EnvState state{.active = 3, .steps_since_swap = 1};
  const float net = env.net(0, 2, 4);
  EXPECT_FLOAT_EQ(env.reward(0, 2, state, 4), net - 0.05f);
  EXPECT_EQ(env.reward(0, 2, state, 3), env.net(0, 2, 3));
  EXPECT_FLOAT_EQ(env.reward(0, 2, state, kBaseAction), -0.05f);
  EXPECT_EQ(env.net(0, 2, kBaseAction), 0.0f);
}

TEST_F(StreamEnvTest, TheMarginIsTakenOffAMemorysRewardAndNotOffItsGain) {
  const StreamEnv with(table, {.candidates = 6, .margin = 0.25f});
  const EnvState state{.active = 4, .steps_since_swap = 1};
  EXPECT_FLOAT_EQ(with.reward(0, 2, state, 4), env.net(0, 2, 4) - 0.25f);
  EXPECT_EQ(with.reward(0, 2, {}, kBaseAction), 0.0f);
  EXPECT_EQ(with.net(0, 2, 4), env.net(0, 2, 4));
}

TEST_F(StreamEnvTest, NothingOfATestSourceChangesTheWhitening) {
  GainTable other = table;
  for (const TableMemory& m : table.memories) {
    if (table.sources[static_cast<std::size_t>(m.source)].split == Split::kTrain) continue;
    for (std::size_t i = m.first_key * table.dim(); i < (m.first_key + m.keys) * table.dim(); ++i) {
      other.keys.values[i] *= 3;
    }
  }
  for (const TableStream& s : table.streams) {
    if (s.split == Split::kTrain) continue;
    const std::uint64_t end = (s.first + s.steps.size()) * table.dim();
    for (std::uint64_t i = s.first * table.dim(); i < end; ++i) other.hidden.values[i] *= 3;
  }
  EXPECT_EQ(StreamEnv(other, env.options()).whitening().digest(), env.whitening().digest());
}

TEST_F(StreamEnvTest, TextThatNoMemoryCoversTakesPartInTheWhitening) {
  const auto changed = [&](bool covered) {
    GainTable other = table;
    for (const TableStream& s : table.streams) {
      for (std::size_t t = 0; s.split == Split::kTrain && t < s.steps.size(); ++t) {
        if (s.steps[t].covered == covered) other.hidden.values[(s.first + t) * table.dim()] += 1;
      }
    }
    return StreamEnv(other, env.options()).whitening().digest() != env.whitening().digest();
  };
  EXPECT_FALSE(changed(/*covered=*/true));
  EXPECT_TRUE(changed(/*covered=*/false));
}

// Else a policy would learn how text looks in a whitening that has seen it.
TEST_F(StreamEnvTest, ATrainingTextIsComparedInAWhiteningThatHasNotSeenItsSource) {
  const auto source_before = [&](std::size_t stream, std::size_t step) {
    return table.streams[stream].steps[step - 1].source;
  };
  const std::size_t stream = 0, step = 2;
  ASSERT_EQ(table.streams[stream].split, Split::kTrain);
  const std::int32_t own = source_before(stream, step);
  ASSERT_TRUE(table.streams[stream].steps[step - 1].covered);
  GainTable other = table;
  for (const TableMemory& m : table.memories) {
    if (m.source != own) continue;
    for (std::size_t i = m.first_key * table.dim(); i < (m.first_key + m.keys) * table.dim(); ++i) {
      other.keys.values[i] *= 3;
    }
  }
  const StreamEnv changed(other, env.options());
  const StreamEnv given(table, env.options(), env.whitening());
  const std::size_t test = env.streams(Split::kTest)[0];
  int unlike_given = 0, unlike_test = 0;
  for (std::size_t m = 0; m < table.memories.size(); ++m) {
    if (table.memories[m].source == own) continue;
    EXPECT_EQ(env.best_key(stream, step, m), changed.best_key(stream, step, m)) << m;
    unlike_given += env.best_key(stream, step, m) != given.best_key(stream, step, m) ? 1 : 0;
    unlike_test += env.best_key(test, step, m) != changed.best_key(test, step, m) ? 1 : 0;
    // Other text has no source that was seen.
    EXPECT_EQ(env.best_key(test, step, m), given.best_key(test, step, m)) << m;
  }
  EXPECT_GT(unlike_given, 0);
  EXPECT_GT(unlike_test, 0);
}

// Text of no source (clean prose) is in a fold of its own, and vectors are those of the policy's
// whitening whatever the text is compared in.
TEST_F(StreamEnvTest, ProseIsComparedInAWhiteningWithoutProse) {
  const GainTable kinds = testing_support::SyntheticTable({.all_kinds = true}).take();
  std::optional<std::size_t> stream;
  GainTable other = kinds;
  for (std::size_t s = 0; s < kinds.streams.size(); ++s) {
    const TableStream& control = kinds.streams[s];
    if (control.kind != StreamKind::kControl || control.split != Split::kTrain) continue;
    if (!stream) {
      stream = s;
      continue;
    }
    for (std::size_t i = 0; i < control.steps.size() * kinds.dim(); ++i) {
      other.hidden.values[control.first * kinds.dim() + i] += 1;
    }
  }
  ASSERT_TRUE(stream);
  const StreamEnv before(kinds, env.options()), after(other, env.options());
  ASSERT_NE(before.whitening().digest(), after.whitening().digest());
  const StreamEnv given(kinds, env.options(), before.whitening());
  for (std::size_t m = 0; m < kinds.memories.size(); ++m) {
    EXPECT_EQ(before.best_key(*stream, 2, m), after.best_key(*stream, 2, m)) << m;
  }
  const EnvDecision fitted = before.decision(*stream, 2, {.active = 3});
  const EnvDecision judged = given.decision(*stream, 2, {.active = 3});
  EXPECT_NE(fitted.candidates[1].best_key, judged.candidates[1].best_key);
  EXPECT_TRUE(std::ranges::equal(fitted.context.query, judged.context.query));
  EXPECT_TRUE(std::ranges::equal(fitted.candidates[1].key, judged.candidates[1].key));
}

TEST_F(StreamEnvTest, TheOracleIsTheBestOfAllAndTheScoresFollow) {
  const Score oracle = evaluate(env, Split::kTest, *oracle_selector());
  EXPECT_EQ(oracle.accuracy, 1.0);
  EXPECT_NEAR(oracle.regret, 0.0, 1e-9);
  for (const auto& other : {base_selector(), random_selector(1), nearest_selector(0.3f),
                            wise_selector(), audition_selector(), lagged_oracle_selector()}) {
    const Score score = evaluate(env, Split::kTest, *other);
    EXPECT_LE(score.mean_gain, oracle.mean_gain) << other->name();
    EXPECT_NEAR(score.regret, oracle.mean_gain - score.mean_gain, 1e-6) << other->name();
    EXPECT_LE(score.ci95.low, score.mean_gain) << other->name();
    EXPECT_GE(score.ci95.high, score.mean_gain) << other->name();
  }
  const Score base = evaluate(env, Split::kTest, *base_selector());
  EXPECT_EQ(base.mean_gain, 0.0);
  EXPECT_EQ(base.abstention, 1.0);
  EXPECT_EQ(base.swaps_per_100, 0.0);
  EXPECT_LT(evaluate(env, Split::kTest, *random_selector(1)).mean_gain, 0.0);
}

TEST_F(StreamEnvTest, ALagCostsAtEverySwitch) {
  const Score now = evaluate(env, Split::kTest, *oracle_selector());
  const Score late = evaluate(env, Split::kTest, *oracle_selector(), {.lag = 1, .kind = {}});
  EXPECT_LT(late.mean_gain, now.mean_gain);
  const Score lagged = evaluate(env, Split::kTest, *lagged_oracle_selector());
  EXPECT_NEAR(late.mean_gain, lagged.mean_gain, 1e-6);  // the same thing said twice
}

TEST_F(StreamEnvTest, APairedDifferenceOfTheSameIsNothing) {
  const Score a = evaluate(env, Split::kTest, *nearest_selector(0.3f));
  const Interval none = paired_difference(env, a, a);
  EXPECT_EQ(none.low, 0.0);
  EXPECT_EQ(none.high, 0.0);
  const Interval more = paired_difference(env, evaluate(env, Split::kTest, *oracle_selector()), a);
  EXPECT_GT(more.low, 0.0);
}

}  // namespace
}  // namespace memslot
