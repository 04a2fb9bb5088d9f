// What every SelectionPolicy promises, run over all of them.
#include <gtest/gtest.h>

#include <cmath>

#include "rl/selection_policy.h"

namespace memslot {
namespace {

std::vector<Candidate> some_candidates(std::size_t count) {
  std::vector<Candidate> out(count);
  out[0].is_base = true;
  for (std::size_t i = 1; i < count; ++i) {
    out[i].ref = {.ns = "default", .id = "m" + std::to_string(i), .version = i};
    out[i].best_key = std::sin(static_cast<float>(i));
  }
  if (count > 2) out[2].is_current = true;
  return out;
}

class PolicyContract : public testing::TestWithParam<const char*> {
 protected:
  std::shared_ptr<const SelectionPolicy> policy_ = make_policy(GetParam()).value();
  std::vector<float> query_ = {0.6f, 0.8f};
};

TEST_P(PolicyContract, ChoosesACandidateAndScoresEach) {
  for (const std::size_t count : {1u, 2u, 3u, 32u}) {
    const auto candidates = some_candidates(count);
    for (std::uint64_t step = 0; step < 20; ++step) {
      const Choice c = policy_->choose({.session = 5, .step = step, .query = query_}, candidates);
      ASSERT_LT(c.index, count);
      ASSERT_EQ(c.scores.size(), count);
      ASSERT_TRUE(std::isfinite(c.log_prob));
      ASSERT_LE(c.log_prob, 0.0f);
    }
  }
}

TEST_P(PolicyContract, ChoosesBaseWhereThereIsNothingElse) {
  const auto candidates = some_candidates(1);
  EXPECT_EQ(policy_->choose({.query = query_}, candidates).index, 0u);
  EXPECT_EQ(policy_->choose({}, candidates).index, 0u);
}

TEST_P(PolicyContract, RepeatsItselfForTheSameStep) {
  const auto candidates = some_candidates(9);
  const auto again = make_policy(GetParam()).value();
  for (std::uint64_t step = 0; step < 50; ++step) {
    const StepContext context{.session = 77, .step = step, .seed = 3, .query = query_};
    const Choice a = policy_->choose(context, candidates);
    const Choice b = again->choose(context, candidates);
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.log_prob, b.log_prob);
    EXPECT_EQ(a.scores, b.scores);
  }
}

TEST_P(PolicyContract, WorksBeforeTheFirstSummary) {
  const auto candidates = some_candidates(4);
  EXPECT_LT(policy_->choose({.session = 1}, candidates).index, 4u);
}

INSTANTIATE_TEST_SUITE_P(Policies, PolicyContract,
                         testing::Values("base", "random", "nearest", "nearest:-1",
                                         "fixed:default/m3", "fixed:m3@3", "fixed:other/absent"));

}  // namespace
}  // namespace memslot
