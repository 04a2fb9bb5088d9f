#include "rl/features.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace memslot {
namespace {

std::size_t column(std::string_view name) {
  const auto table = feature_table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == name) return i;
  }
  ADD_FAILURE() << name;
  return 0;
}

struct FeaturesTest : testing::Test {
  std::vector<Candidate> candidates = std::vector<Candidate>(4);
  StepContext step;
  std::vector<float> query = {1.0f};

  void SetUp() override {
    candidates[0].is_base = true;
    const float keys[] = {0, 0.2f, 0.9f, 0.5f};
    for (std::size_t i = 1; i < 4; ++i) {
      candidates[i].ref.version = i;
      candidates[i].best_key = keys[i];
      candidates[i].long_key = 1 - keys[i];
    }
    candidates[3].is_current = true;
    candidates[3].kind = MemoryKind::kLora;
    step.query = query;
    step.steps_since_swap = 3;
  }
  float value(std::size_t row, std::string_view name) {
    std::vector<float> out;
    append_features(step, candidates, out);
    EXPECT_EQ(out.size(), 4 * feature_count());
    return out[row * feature_count() + column(name)];
  }
};

TEST_F(FeaturesTest, EveryColumnHasItsOwnName) {
  std::set<std::string_view> names;
  for (const auto& info : feature_table()) names.insert(info.name);
  EXPECT_EQ(names.size(), feature_count());
}

TEST_F(FeaturesTest, TheLeadIsOverTheBestOfTheOthers) {
  EXPECT_FLOAT_EQ(value(2, "best_key_lead"), 0.4f);
  EXPECT_FLOAT_EQ(value(3, "best_key_lead"), -0.4f);
  EXPECT_FLOAT_EQ(value(1, "best_key_lead"), -0.7f);
  EXPECT_FLOAT_EQ(value(0, "best_key_lead"), -0.9f);
}

TEST_F(FeaturesTest, TheLongerWindowHasALeadOfItsOwn) {
  EXPECT_FLOAT_EQ(value(1, "long_key"), 0.8f);
  EXPECT_FLOAT_EQ(value(1, "long_key_lead"), 0.3f);
  EXPECT_FLOAT_EQ(value(3, "long_key_lead"), -0.3f);
  EXPECT_FLOAT_EQ(value(0, "long_key"), 0.0f);
  EXPECT_FLOAT_EQ(value(0, "long_key_lead"), -0.8f);
}

TEST_F(FeaturesTest, AMemoryAloneLeadsNothing) {
  candidates.resize(2);
  std::vector<float> out;
  append_features(step, candidates, out);
  EXPECT_FLOAT_EQ(out[feature_count() + column("best_key_lead")], 0.2f);
  candidates.resize(1);
  out.clear();
  append_features(step, candidates, out);
  EXPECT_TRUE(all_finite(out));
}

TEST_F(FeaturesTest, StepNumbersAreInEveryRow) {
  for (std::size_t row = 0; row < 4; ++row) {
    EXPECT_FLOAT_EQ(value(row, "steps_since_swap"), std::log(4.0f) / 4);
    EXPECT_EQ(value(row, "has_query"), 1.0f);
  }
}

TEST_F(FeaturesTest, OrderOfCandidatesDoesNotMatter) {
  std::vector<float> before, after;
  append_features(step, candidates, before);
  std::swap(candidates[1], candidates[3]);
  append_features(step, candidates, after);
  const std::size_t f = feature_count();
  EXPECT_TRUE(std::equal(before.begin() + static_cast<std::ptrdiff_t>(f),
                         before.begin() + static_cast<std::ptrdiff_t>(2 * f),
                         after.begin() + static_cast<std::ptrdiff_t>(3 * f)));
}

TEST_F(FeaturesTest, WhatIsNotFiniteIsFound) {
  candidates[2].best_key = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> out;
  append_features(step, candidates, out);
  EXPECT_FALSE(all_finite(out));
}

}  // namespace
}  // namespace memslot
