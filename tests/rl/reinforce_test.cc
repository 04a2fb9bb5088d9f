#include "rl/reinforce.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/rl/episodes.h"

namespace memslot {
namespace {

using testing_support::random_episode;
using testing_support::random_step;

constexpr std::uint32_t kKeyDim = 5;

ScorerConfig small_scorer() {
  return {.features = feature_count(), .key_dim = kKeyDim, .rank = 3, .hidden = 8};
}

std::unique_ptr<ReinforceLearner> make(ReinforceOptions options) {
  auto made = ReinforceLearner::make(small_scorer(), options);
  EXPECT_TRUE(made) << made.error().message;
  return std::move(made).value();
}

std::vector<Rollouts> some_streams(std::uint64_t seed) {
  std::vector<Rollouts> out;
  for (std::uint64_t s = 0; s < 2; ++s) {
    Rollouts rollouts;
    for (std::uint64_t r = 0; r < 3; ++r) {
      rollouts.push_back(random_episode(seed * 100 + s * 10 + r + 1, 4, kKeyDim));
    }
    rollouts[0].snapshot = 5;  // older: counts with its ratio
    rollouts[1].steps[2].trains = false;
    out.push_back(std::move(rollouts));
  }
  return out;
}

void expect_gradient_of_differences(Baseline baseline) {
  ReinforceOptions options;
  options.float64 = true;
  options.baseline = baseline;
  options.entropy_bonus = 0.3f;
  auto learner = make(options);
  auto streams = some_streams(3);
  // The importance ratio has no gradient: at its clip it is a constant.
  for (Rollouts& rollouts : streams) {
    for (EpisodeStep& step : rollouts[0].steps) step.log_prob = -50;
  }
  const std::vector<double> at = learner->parameters();
  const auto gradient = learner->gradient(streams);
  ASSERT_TRUE(gradient) << gradient.error().message;
  ASSERT_EQ(gradient.value().size(), at.size());
  constexpr double kEpsilon = 1e-5;
  double largest = 0;
  for (std::size_t i = 0; i < at.size(); ++i) {
    std::vector<double> moved = at;
    moved[i] += kEpsilon;
    learner->set_parameters(moved);
    const double above = learner->loss(streams).value();
    moved[i] -= 2 * kEpsilon;
    learner->set_parameters(moved);
    const double below = learner->loss(streams).value();
    const double expected = (above - below) / (2 * kEpsilon);
    EXPECT_NEAR(gradient.value()[i], expected, 1e-7 + 1e-6 * std::abs(expected)) << i;
    largest = std::max(largest, std::abs(expected));
  }
  EXPECT_GT(largest, 1e-2);  // the comparison is of something
}

TEST(Reinforce, TheGradientIsThatOfFiniteDifferences) {
  expect_gradient_of_differences(Baseline::kLeaveOneOut);
  expect_gradient_of_differences(Baseline::kNone);
  expect_gradient_of_differences(Baseline::kValue);
}

// A bandit: of K arms the one whose first feature is the highest pays 1, the others 0. An episode
// is one pull, chosen by the present policy.
class Bandit {
 public:
  explicit Bandit(std::uint64_t seed) : seed_(seed) {}

  EpisodeStep arms(std::uint64_t pull) const {
    EpisodeStep step = random_step(seed_ * 100'000 + pull, 5, kKeyDim);
    std::size_t best = 0;
    for (std::size_t i = 1; i < 5; ++i) {
      if (step.features[i * feature_count()] > step.features[best * feature_count()]) best = i;
    }
    step.action = static_cast<std::uint32_t>(best);  // the answer, until it is overwritten
    return step;
  }

 private:
  std::uint64_t seed_;
};

double share_right(const ReinforceLearner& learner, const Bandit& bandit) {
  int right = 0;
  for (std::uint64_t pull = 0; pull < 100; ++pull) {
    const EpisodeStep step = bandit.arms(900'000 + pull);
    const auto log_probs = learner.log_probs({&step, 1}).value()[0];
    const auto top = std::max_element(log_probs.begin(), log_probs.end());
    right += top - log_probs.begin() == static_cast<std::ptrdiff_t>(step.action) ? 1 : 0;
  }
  return right / 100.0;
}

TEST(Reinforce, SolvesABanditWithAKnownAnswerForFiveOfFiveSeeds) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    ReinforceOptions options;
    options.seed = seed;
    options.learning_rate = 1e-2f;
    auto learner = make(options);
    const Bandit bandit(seed);
    for (std::uint64_t update = 0; update < 500; ++update) {
      std::vector<Rollouts> streams;
      for (std::uint64_t s = 0; s < 16; ++s) {
        const EpisodeStep arms = bandit.arms(update * 16 + s);
        const auto log_probs = learner->log_probs({&arms, 1}).value()[0];
        Rollouts rollouts;
        for (std::uint64_t r = 0; r < 4; ++r) {
          EpisodeStep pull = arms;
          double left = uniform01(seed, 11, (update * 16 + s) * 4 + r);
          pull.action = 4;
          for (std::uint32_t a = 0; a < 5; ++a) {
            left -= std::exp(log_probs[a]);
            if (left < 0) {
              pull.action = a;
              break;
            }
          }
          pull.reward = pull.action == arms.action ? 1.0f : 0.0f;
          rollouts.push_back({0, {pull}});
        }
        streams.push_back(std::move(rollouts));
      }
      ASSERT_TRUE(learner->update(streams));
    }
    EXPECT_GE(share_right(*learner, bandit), 0.9) << "seed " << seed;
  }
}

TEST(Reinforce, TheSameSeedAndEpisodesGiveTheSameBits) {
  const auto run = [] {
    auto learner = make({});
    for (std::uint64_t i = 0; i < 10; ++i) EXPECT_TRUE(learner->update(some_streams(i)));
    return learner->checkpoint(true).bytes();
  };
  EXPECT_EQ(run(), run());
}

TEST(Reinforce, LearningResumedFromACheckpointGivesTheSameBits) {
  for (const Baseline baseline : {Baseline::kLeaveOneOut, Baseline::kValue}) {
    ReinforceOptions options;
    options.baseline = baseline;
    auto whole = make(options);
    auto first = make(options);
    for (std::uint64_t i = 0; i < 5; ++i) {
      ASSERT_TRUE(whole->update(some_streams(i)));
      ASSERT_TRUE(first->update(some_streams(i)));
    }
    const auto saved = Checkpoint::parse(first->checkpoint(true).bytes());
    ASSERT_TRUE(saved) << saved.error().message;
    auto second = ReinforceLearner::resume(saved.value(), options);
    ASSERT_TRUE(second) << second.error().message;
    for (std::uint64_t i = 5; i < 10; ++i) {
      ASSERT_TRUE(whole->update(some_streams(i)));
      ASSERT_TRUE(second.value()->update(some_streams(i)));
    }
    EXPECT_EQ(whole->checkpoint(true).bytes(), second.value()->checkpoint(true).bytes());
  }
}

TEST(Reinforce, ImitationLearnsTheActionsShown) {
  auto learner = make({.learning_rate = 1e-2f});
  const Bandit bandit(9);
  for (std::uint64_t update = 0; update < 300; ++update) {
    std::vector<Episode> shown;
    for (std::uint64_t s = 0; s < 48; ++s) shown.push_back({0, {bandit.arms(update * 48 + s)}});
    ASSERT_TRUE(learner->imitate(shown));
  }
  EXPECT_GE(share_right(*learner, bandit), 0.9);
}

TEST(Reinforce, StepsThatSomethingElseDecidedTeachNothing) {
  auto learner = make({});
  auto streams = some_streams(1);
  const double before = learner->loss(streams).value();
  Episode pinned = random_episode(77, 3, kKeyDim);
  for (EpisodeStep& step : pinned.steps) step.trains = false;
  streams.push_back({pinned});
  EXPECT_EQ(learner->loss(streams).value(), before);
  const std::vector<Rollouts> nothing = {{pinned}};
  EXPECT_EQ(learner->update(nothing).error().code, ErrorCode::kInvalidArgument);
}

TEST(Reinforce, ARewardThatIsNoNumberIsRefusedAndNothingIsLearned) {
  auto learner = make({});
  const std::string before = learner->checkpoint(true).bytes();
  auto streams = some_streams(1);
  streams[1][2].steps[3].reward = std::numeric_limits<float>::quiet_NaN();
  const auto refused = learner->update(streams);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(learner->checkpoint(true).bytes(), before);
}

TEST(Reinforce, WhatIsPublishedIsTheRunningMeanOfTheParameters) {
  ReinforceOptions options;
  options.averaging = 0.75f;
  auto learner = make(options);
  std::vector<double> mean = learner->parameters();
  double moved = 0;
  for (int n = 1; n <= 40; ++n) {
    ASSERT_TRUE(learner->update(some_streams(static_cast<std::uint64_t>(n))));
    const double keep = std::min(0.75, n / (n + 9.0));
    const std::vector<double> now = learner->parameters();
    for (std::size_t i = 0; i < mean.size(); ++i) {
      mean[i] = keep * mean[i] + (1 - keep) * now[i];
      moved = std::max(moved, std::abs(mean[i] - now[i]));
    }
  }
  ASSERT_GT(moved, 1e-3);  // else this compares a parameter with itself
  auto published = ReinforceLearner::go_on_from(learner->checkpoint(false), {});
  ASSERT_TRUE(published) << published.error().message;
  const std::vector<double> found = published.value()->parameters();
  for (std::size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(found[i], mean[i], 1e-5) << i;
  // What acts and goes on learning is not the mean, and both survive.
  EXPECT_NE(learner->checkpoint(true).tensors.at("scorer.w2").values,
            learner->checkpoint(false).tensors.at("scorer.w2").values);
  const auto resumed = ReinforceLearner::resume(learner->checkpoint(true), options);
  ASSERT_TRUE(resumed) << resumed.error().message;
  EXPECT_EQ(resumed.value()->parameters(), learner->parameters());
  EXPECT_EQ(resumed.value()->checkpoint(false).bytes(), learner->checkpoint(false).bytes());
}

TEST(Reinforce, AnOlderSnapshotsEpisodeCountsByItsRatioUpToTheClip) {
  ReinforceOptions options;
  options.entropy_bonus = 0;
  options.ratio_clip = 3.0f;
  options.baseline = Baseline::kNone;
  auto learner = make(options);
  Episode episode{0, {random_step(3, 4, kKeyDim)}};
  const double own = learner->loss(std::vector<Rollouts>{{episode}}).value();
  const EpisodeStep& step = episode.steps[0];
  const float log_prob = learner->log_probs({&step, 1}).value()[0][step.action];
  episode.snapshot = 9;
  // pi / mu = 1, 2, 0.5, and far above the clip
  for (const auto& [behaviour, ratio] : {std::pair{log_prob, 1.0},
                                         {log_prob - std::log(2.0f), 2.0},
                                         {log_prob + std::log(2.0f), 0.5},
                                         {-20.0f, 3.0}}) {
    episode.steps[0].log_prob = behaviour;
    const double loss = learner->loss(std::vector<Rollouts>{{episode}}).value();
    EXPECT_NEAR(loss, ratio * own, 1e-5 * std::abs(own)) << ratio;
  }
}

}  // namespace
}  // namespace memslot
