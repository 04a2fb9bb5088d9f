#include "rl/episode.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/rl/episodes.h"

namespace memslot {
namespace {

using testing_support::random_episode;

Episode with_rewards(std::initializer_list<float> rewards) {
  Episode out;
  for (const float r : rewards) {
    EpisodeStep step;
    step.reward = r;
    out.steps.push_back(step);
  }
  return out;
}

TEST(Episode, ReturnsAreDiscountedSumsOfWhatComes) {
  EXPECT_EQ(discounted_returns(with_rewards({1, 2, 4}), 0.5f), (std::vector<float>{3, 4, 4}));
  EXPECT_EQ(discounted_returns(with_rewards({1, 2, 4}), 0.0f), (std::vector<float>{1, 2, 4}));
  EXPECT_TRUE(discounted_returns({}, 0.5f).empty());
}

TEST(Episode, TheBaselineOfARolloutIsTheMeanOfTheOthers) {
  const auto baselines = leave_one_out({{1, 10}, {3, 20}, {5}});
  EXPECT_EQ(baselines[0], (std::vector<float>{4, 20}));
  EXPECT_EQ(baselines[1], (std::vector<float>{3, 10}));
  EXPECT_EQ(baselines[2], (std::vector<float>{2}));
  EXPECT_EQ(leave_one_out({{1, 2}})[0], (std::vector<float>{0, 0}));
}

TEST(Episode, WhatDoesNotFitIsRefusedAndNamed) {
  const std::uint32_t f = feature_count(), r = 4;
  const Episode good = random_episode(1, 3, r);
  EXPECT_TRUE(check_episode(good, f, r));
  const auto refused = [&](auto change, const char* named) {
    Episode bad = good;
    change(bad.steps[1]);
    const Status status = check_episode(bad, f, r);
    ASSERT_FALSE(status) << named;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find("step 1: " + std::string(named)), std::string::npos)
        << status.error().message;
  };
  refused([](EpisodeStep& s) { s.candidates = 0; }, "candidates");
  refused([](EpisodeStep& s) { s.action = s.candidates; }, "action");
  refused([](EpisodeStep& s) { s.features.pop_back(); }, "features");
  refused([](EpisodeStep& s) { s.query.pop_back(); }, "query");
  refused([](EpisodeStep& s) { s.keys.push_back(0); }, "keys");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refused([&](EpisodeStep& s) { s.reward = nan; }, "numbers");
  refused([&](EpisodeStep& s) { s.features[0] = nan; }, "numbers");
  refused([&](EpisodeStep& s) { s.log_prob = -std::numeric_limits<float>::infinity(); }, "numbers");
}

}  // namespace
}  // namespace memslot
