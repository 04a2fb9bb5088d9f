#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "rl/selection_policy.h"

namespace memslot {
namespace {

std::vector<Candidate> three() {
  std::vector<Candidate> out(3);
  out[0].is_base = true;
  out[1].ref = {.ns = "default", .id = "a", .version = 4};
  out[2].ref = {.ns = "notes", .id = "a", .version = 9};
  return out;
}

std::size_t choose(std::string_view spec, const StepContext& step,
                   const std::vector<Candidate>& candidates) {
  return make_policy(spec).value()->choose(step, candidates).index;
}

TEST(NearestPolicy, TakesTheNearestMemoryAboveItsThreshold) {
  auto candidates = three();
  candidates[1].best_key = 0.5f;
  candidates[2].best_key = 0.7f;
  const std::array<float, 1> query = {1.0f};
  EXPECT_EQ(choose("nearest", {.query = query}, candidates), 2u);
  EXPECT_EQ(choose("nearest:0.7", {.query = query}, candidates), 0u);  // base wins ties
  EXPECT_EQ(choose("nearest:0.69", {.query = query}, candidates), 2u);
}

TEST(NearestPolicy, KeepsWhatIsActiveUntilThereIsAQuery) {
  auto candidates = three();
  candidates[1].best_key = 0.9f;
  candidates[2].is_current = true;
  EXPECT_EQ(choose("nearest", {}, candidates), 2u);
}

TEST(FixedPolicy, FindsItsMemoryByNamespaceIdAndVersion) {
  const auto candidates = three();
  EXPECT_EQ(choose("fixed:a", {}, candidates), 1u);
  EXPECT_EQ(choose("fixed:notes/a", {}, candidates), 2u);
  EXPECT_EQ(choose("fixed:notes/a@9", {}, candidates), 2u);
  EXPECT_EQ(choose("fixed:notes/a@8", {}, candidates), 0u);
  EXPECT_EQ(choose("fixed:notes/b", {}, candidates), 0u);
}

TEST(FixedPolicy, NamesTheMemoryThatItWants) {
  const auto policy = make_policy("fixed:notes/a@9").value();
  ASSERT_NE(policy->wanted(), nullptr);
  EXPECT_EQ(policy->wanted()->text(), "notes/a@9");
  EXPECT_EQ(make_policy("nearest").value()->wanted(), nullptr);
}

TEST(RandomPolicy, IsUniformOverTheCandidatesBaseIncluded) {
  const auto policy = make_policy("random").value();
  const auto candidates = three();
  std::array<int, 3> counts{};
  for (std::uint64_t step = 0; step < 3000; ++step) {
    const Choice c = policy->choose({.session = 1, .step = step, .seed = 2}, candidates);
    EXPECT_FLOAT_EQ(c.log_prob, -std::log(3.0f));
    ++counts[c.index];
  }
  // Binomial(3000, 1/3): standard deviation 25.8; five of them.
  for (const int count : counts) EXPECT_NEAR(count, 1000, 130);
}

TEST(RandomPolicy, DependsOnSeedSessionAndStep) {
  const auto candidates = three();
  const auto run = [&](std::uint64_t seed, std::uint64_t session) {
    std::vector<std::size_t> out;
    for (std::uint64_t step = 0; step < 64; ++step) {
      out.push_back(choose("random", {.session = session, .step = step, .seed = seed}, candidates));
    }
    return out;
  };
  EXPECT_NE(run(1, 1), run(2, 1));
  EXPECT_NE(run(1, 1), run(1, 2));
  EXPECT_EQ(run(1, 1), run(1, 1));
}

TEST(MakePolicy, RefusesWhatItDoesNotKnow) {
  for (const char* spec : {"", "best", "base:1", "random:", "fixed", "fixed:", "fixed:A/B C",
                           "nearest:", "nearest:x", "nearest:1.5", "nearest:nan"}) {
    const auto policy = make_policy(spec);
    ASSERT_FALSE(policy) << spec;
    EXPECT_EQ(policy.error().code, ErrorCode::kInvalidArgument) << spec;
  }
}

}  // namespace
}  // namespace memslot
