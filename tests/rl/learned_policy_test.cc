#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "rl/features.h"
#include "rl/reinforce.h"

namespace memslot {
namespace {

constexpr std::uint32_t kKeyDim = 3;

struct LearnedPolicyTest : testing::Test {
  Checkpoint checkpoint =
      ReinforceLearner::make(
          {.features = feature_count(), .key_dim = kKeyDim, .rank = 2, .hidden = 8}, {.seed = 4})
          .value()
          ->checkpoint(false);
  std::vector<float> query = {0.6f, 0.8f, 0}, key = {0.8f, 0.6f, 0};

  std::vector<Candidate> some_candidates(std::size_t count) const {
    std::vector<Candidate> out(count);
    out[0].is_base = true;
    for (std::size_t i = 1; i < count; ++i) {
      out[i].ref = {
          .ns = "default", .id = std::string("m").append(std::to_string(i)), .version = i};
      out[i].best_key = 0.1f * static_cast<float>(i);
      out[i].key = key;
    }
    if (count > 2) out[2].is_current = true;
    return out;
  }
  std::shared_ptr<const SelectionPolicy> policy() const {
    auto made = make_learned_policy(checkpoint);
    EXPECT_TRUE(made) << made.error().message;
    return made.value();
  }
};

TEST_F(LearnedPolicyTest, ChoosesTheHighestScoreWithItsLogProbability) {
  const auto p = policy();
  for (const std::size_t count : {1u, 2u, 5u, 32u}) {
    const auto candidates = some_candidates(count);
    const Choice c = p->choose({.session = 1, .step = 2, .query = query}, candidates);
    ASSERT_EQ(c.scores.size(), count);
    double sum = 0;
    for (const float s : c.scores) {
      EXPECT_LE(s, c.scores[c.index]);
      sum += std::exp(static_cast<double>(s - c.scores[c.index]));
    }
    EXPECT_NEAR(c.log_prob, -std::log(sum), 1e-6);
  }
}

TEST_F(LearnedPolicyTest, ExploringItDrawsByTheProbabilitiesAndRepeatsItself) {
  const auto p = policy();
  const auto candidates = some_candidates(4);
  std::vector<double> drawn(4, 0.0), expected(4, 0.0);
  constexpr int kDraws = 20'000;
  for (std::uint64_t step = 0; step < kDraws; ++step) {
    const StepContext context{
        .session = 3, .step = step, .seed = 11, .query = query, .explore = true};
    const Choice c = p->choose(context, candidates);
    drawn[c.index] += 1.0 / kDraws;
    expected[c.index] = std::exp(c.log_prob);
    ASSERT_EQ(p->choose(context, candidates).index, c.index);
  }
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(drawn[i], expected[i], 0.02) << i;
}

TEST_F(LearnedPolicyTest, TheSameCheckpointGivesTheSameScoresBitForBit) {
  const auto candidates = some_candidates(9);
  const StepContext context{.session = 3, .step = 1, .query = query};
  const auto again = make_learned_policy(Checkpoint::parse(checkpoint.bytes()).value()).value();
  EXPECT_EQ(policy()->choose(context, candidates).scores,
            again->choose(context, candidates).scores);
  EXPECT_EQ(policy()->digest(), again->digest());
}

TEST_F(LearnedPolicyTest, AllCandidatesEqualTheFirstWins) {
  std::vector<Candidate> candidates(3);
  for (Candidate& c : candidates) c.is_base = true;
  EXPECT_EQ(policy()->choose({.query = query}, candidates).index, 0u);
}

TEST_F(LearnedPolicyTest, WithANumberThatIsNotFiniteWhatIsActiveStays) {
  auto candidates = some_candidates(4);
  candidates[3].best_key = std::numeric_limits<float>::quiet_NaN();
  const Choice c = policy()->choose({.query = query}, candidates);
  EXPECT_EQ(c.index, 2u);
  EXPECT_EQ(c.scores.size(), 4u);
}

TEST_F(LearnedPolicyTest, BeforeTheFirstSummaryAndWithoutKeysItStillScores) {
  auto candidates = some_candidates(4);
  candidates[1].key = {};
  EXPECT_LT(policy()->choose({.session = 1}, candidates).index, 4u);
  EXPECT_LT(policy()->choose({.session = 1, .query = query}, candidates).index, 4u);
}

TEST_F(LearnedPolicyTest, ACheckpointWithoutATensorOrOfAnotherShapeIsRefused) {
  Checkpoint broken = checkpoint;
  broken.tensors.erase("scorer.w2");
  EXPECT_EQ(make_learned_policy(broken).error().code, ErrorCode::kCorruption);
  broken = checkpoint;
  broken.tensors["scorer.w2"] = {Shape{1}, {0}};
  EXPECT_EQ(make_learned_policy(broken).error().code, ErrorCode::kMismatch);
}

}  // namespace
}  // namespace memslot
