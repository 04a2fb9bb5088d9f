#include "generator/runtime/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <vector>

namespace memslot {
namespace {

using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> out;
  for (const double p : probabilities)
    out.push_back(static_cast<float>(std::log(p) + 3.0));  // shifted
  return out;
}

SamplingSettings warm() {
  SamplingSettings s;
  s.temperature = 1;
  s.seed = 11;
  return s;
}

// How often each id is drawn over n positions.
std::vector<double> shares(const std::vector<float>& logits, const SamplingSettings& s,
                           int n = 20000) {
  std::vector<double> out(logits.size());
  for (int i = 0; i < n; ++i) {
    const auto drawn = sample(logits, s, /*stream=*/1, static_cast<std::uint64_t>(i));
    out[static_cast<std::size_t>(drawn.value().token)] += 1;
  }
  for (auto& count : out) count /= n;
  return out;
}

// Five standard deviations of a share over n draws.
void expect_shares(const std::vector<double>& got, const std::vector<double>& want, int n = 20000) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], 5 * std::sqrt(want[i] * (1 - want[i]) / n)) << "id " << i;
  }
}

TEST(Sampler, GreedyTakesTheLargestAndOfEqualsTheLowestId) {
  EXPECT_EQ(sample(std::array{1.0f, 3.0f, 3.0f, 2.0f}, {}, 0, 0).value().token, 1);
  EXPECT_EQ(sample(std::array{-kInfinity, -5.0f}, {}, 0, 0).value().token, 1);
}

TEST(Sampler, ReportsTheFullDistributionWhateverTheSettings) {
  const std::vector<double> p{0.5, 0.25, 0.125, 0.125};
  for (auto s : {SamplingSettings{},
                 SamplingSettings{.temperature = 0.3, .top_k = 1, .top_p = 0.5, .seed = 1}}) {
    const auto got = sample(logs(p), s, 0, 0).value();
    EXPECT_EQ(got.token, 0);
    EXPECT_NEAR(got.log_prob, std::log(0.5), 1e-6);
    EXPECT_NEAR(got.entropy, 1.75 * std::log(2.0), 1e-6);
  }
  EXPECT_NEAR(score(logs(p), 3).value().log_prob, std::log(0.125), 1e-6);
  EXPECT_NEAR(score(logs(p), 3).value().entropy, 1.75 * std::log(2.0), 1e-6);
}

TEST(Sampler, StaysExactForHugeAndForImpossibleLogits) {
  const auto got = score(std::array{1e30f, 1e30f, -kInfinity, -1e30f}, 0).value();
  EXPECT_NEAR(got.log_prob, -std::log(2.0), 1e-12);
  EXPECT_NEAR(got.entropy, std::log(2.0), 1e-12);
  EXPECT_EQ(score(std::array{0.0f, -kInfinity}, 1).value().log_prob,
            -std::numeric_limits<double>::infinity());
  EXPECT_EQ(score(std::array{5.0f}, 0).value().entropy, 0.0);
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheTemperature) {
  const std::vector<double> p{0.1, 0.4, 0.2, 0.3};
  expect_shares(shares(logs(p), warm()), p);
  auto hot = warm();
  hot.temperature = 2;  // q_i is the square root of p_i, normalised
  double total = 0;
  std::vector<double> q;
  for (const double v : p) total += std::sqrt(v);
  for (const double v : p) q.push_back(std::sqrt(v) / total);
  expect_shares(shares(logs(p), hot), q);
}

TEST(Sampler, TopKKeepsTheMostLikelyAndOfEqualsTheLowestIds) {
  auto s = warm();
  s.top_k = 2;
  expect_shares(shares(logs({0.1, 0.4, 0.2, 0.3}), s), {0, 4.0 / 7, 0, 3.0 / 7});
  expect_shares(shares(logs({0.25, 0.25, 0.25, 0.25}), s), {0.5, 0.5, 0, 0});
  s.top_k = 100;
  expect_shares(shares(logs({0.5, 0.5}), s), {0.5, 0.5});
}

TEST(Sampler, TopPKeepsTheShortestPrefixThatReachesIt) {
  auto s = warm();
  s.top_p = 0.6;
  expect_shares(shares(logs({0.1, 0.4, 0.2, 0.3}), s), {0, 4.0 / 7, 0, 3.0 / 7});
  s.top_p = 0.05;
  expect_shares(shares(logs({0.1, 0.4, 0.2, 0.3}), s), {0, 1, 0, 0});
  s.top_p = 0.6;
  s.top_k = 1;
  expect_shares(shares(logs({0.1, 0.4, 0.2, 0.3}), s), {0, 1, 0, 0});
}

TEST(Sampler, TopPIsMeasuredAfterTheTemperature) {
  auto s = warm();
  s.temperature = 0.5;  // 0.16 : 0.09 : 0.04 : 0.01 -> 0.53, 0.30, 0.13, 0.03
  s.top_p = 0.5;
  expect_shares(shares(logs({0.1, 0.4, 0.2, 0.3}), s), {0, 1, 0, 0});
}

TEST(Sampler, NeverDrawsTheImpossible) {
  auto s = warm();
  for (const double temperature : {0.01, 1.0, 100.0}) {
    s.temperature = temperature;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      EXPECT_EQ(sample(std::array{-kInfinity, 0.0f, -kInfinity}, s, 3, i).value().token, 1);
    }
  }
}

TEST(Sampler, DependsOnNothingButItsArguments) {
  std::mt19937 rng(5);
  std::vector<float> logits(1000);
  for (auto& v : logits) v = static_cast<float>(rng() % 1000) / 200.0f;
  auto s = warm();
  std::map<std::int32_t, int> by_position, by_stream, by_seed;
  for (std::uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(sample(logits, s, 4, i).value().token, sample(logits, s, 4, i).value().token);
    ++by_position[sample(logits, s, 4, i).value().token];
    ++by_stream[sample(logits, s, i, 4).value().token];
    auto other = s;
    other.seed = i;
    ++by_seed[sample(logits, other, 4, 4).value().token];
  }
  EXPECT_GT(by_position.size(), 10U);
  EXPECT_GT(by_stream.size(), 10U);
  EXPECT_GT(by_seed.size(), 10U);
}

struct BadSettings {
  const char* name;
  const char* message;
  SamplingSettings settings;
};
class BadSampling : public testing::TestWithParam<BadSettings> {};

TEST_P(BadSampling, IsRefusedWithItsReason) {
  const auto checked = check_sampling(GetParam().settings);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(checked.error().message, HasSubstr(GetParam().message));
  EXPECT_FALSE(sample(std::array{1.0f}, GetParam().settings, 0, 0));
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

INSTANTIATE_TEST_SUITE_P(
    Settings, BadSampling,
    testing::Values(
        BadSettings{
            "NegativeTemperature", "temperature: expected 0 or more", {.temperature = -0.1}},
        BadSettings{"NanTemperature", "temperature", {.temperature = kNan}},
        BadSettings{"InfiniteTemperature",
                    "temperature",
                    {.temperature = std::numeric_limits<double>::infinity()}},
        BadSettings{"NegativeTopK", "top_k: expected 0 (off) or more, found -1", {.top_k = -1}},
        BadSettings{"ZeroTopP", "top_p: expected above 0, at most 1", {.top_p = 0}},
        BadSettings{"TopPAboveOne", "top_p", {.top_p = 1.01}},
        BadSettings{"NanTopP", "top_p", {.top_p = kNan}}),
    [](const auto& c) { return c.param.name; });

TEST(BadLogits, AreRefusedWithTheirReason) {
  const auto error = [](std::vector<float> logits) { return sample(logits, {}, 0, 0).error(); };
  EXPECT_EQ(error({}).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(error({1, NAN}).code, ErrorCode::kCorruption);
  EXPECT_THAT(error({1, NAN}).message, HasSubstr("logit 1: expected a finite number"));
  EXPECT_THAT(error({kInfinity}).message, HasSubstr("logit 0"));
  EXPECT_THAT(error({-kInfinity, -kInfinity}).message,
              HasSubstr("largest logit: expected a finite number"));
  for (const std::int32_t token : {-1, 2}) {
    const auto scored = score(std::array{1.0f, 2.0f}, token);
    ASSERT_FALSE(scored);
    EXPECT_EQ(scored.error().message, "token id: expected 0 to 1, found " + std::to_string(token));
  }
}

}  // namespace
}  // namespace memslot
