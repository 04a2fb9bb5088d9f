#include <gtest/gtest.h>

#include "generator/learn/learner.h"
#include "generator/learn/recipe.h"
#include "tests/support/deep_json.h"

namespace memslot {
namespace {

TEST(LearnConfigs, AbsentNamesTakeTheirDefaults) {
  const auto config = learn_config_from_json("{}");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(to_json(config.value()), to_json(LearnConfig{}));
}

TEST(LearnConfigs, PrintedAndReadAgainTheyAreTheSame) {
  LearnConfig config;
  config.kind = MemoryKind::kLora;
  config.segments = SegmentLayout::kOverlap;
  config.lr = 0.0015f;
  config.alpha = 12.5f;
  config.rank = 8;
  config.dtype = DType::kF32;
  config.seed = 9007199254740991ULL;
  const std::string text = to_json(config);
  EXPECT_NE(text.find("\"lr\":0.0015"), std::string::npos) << text;
  const auto again = learn_config_from_json(text);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(to_json(again.value()), text);
  EXPECT_EQ(again.value().lr, config.lr);
}

class BadConfigs : public ::testing::TestWithParam<const char*> {};

TEST_P(BadConfigs, AreRefusedNamingTheOption) {
  const auto config = learn_config_from_json(GetParam());
  ASSERT_FALSE(config) << GetParam();
  EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(config.error().message.find("expected"), std::string::npos) << config.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadConfigs,
    ::testing::Values("", "[]", "3", "{", R"({"unknown":1})", R"({"kind":"delta"})",
                      R"({"kind":7})", R"({"segments":"both"})", R"({"dtype":"f16"})",
                      R"({"rank":0})", R"({"rank":2.5})", R"({"rank":257})", R"({"rank":"16"})",
                      R"({"lr":-0.1})", R"({"lr":2})", R"({"lr":null})", R"({"max_steps":-1})",
                      R"({"max_steps":1e9})", R"({"target_recall":1.1})", R"({"alpha":0})",
                      R"({"window_words":3})", R"({"stride_words":0})", R"({"stride_words":33})",
                      R"({"warmup_share":-1})", R"({"alone_share":2})", R"({"seed":-1})",
                      R"({"layer":-2})"));

TEST(LearnConfigs, WhatNestsTooDeeplyIsRefused) {
  const auto config = learn_config_from_json(deep_json(R"({"lr":)", "}"));
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
}

TEST(LearnConfigs, EveryOpenNumberGetsARecipe) {
  for (const MemoryKind kind : {MemoryKind::kMlp, MemoryKind::kLora}) {
    for (const SegmentLayout layout : {SegmentLayout::kOverlap, SegmentLayout::kCumulative}) {
      LearnConfig config;
      config.kind = kind;
      config.segments = layout;
      const LearnConfig full = with_defaults(config);
      EXPECT_GT(full.lr, 0);
      EXPECT_GT(full.max_steps, 0);
      EXPECT_GE(full.anchor, 0);
      EXPECT_GE(full.alone_share, 0);
      config.lr = 0.5f;
      config.anchor = 0;
      EXPECT_EQ(with_defaults(config).lr, 0.5f) << "what is given stays";
      EXPECT_EQ(with_defaults(config).anchor, 0.0f);
    }
  }
}

TEST(LearnConfigs, TheRateWarmsUpAndDecays) {
  LearnConfig config;
  config.lr = 1;
  config.max_steps = 50;
  config.warmup_share = 0.1f;
  EXPECT_NEAR(learning_rate(config, 1), 0.2, 1e-6);
  EXPECT_NEAR(learning_rate(config, 5), 1, 1e-6);
  for (int step = 6; step <= 50; ++step)
    EXPECT_LE(learning_rate(config, step), learning_rate(config, step - 1));
  EXPECT_NEAR(learning_rate(config, 50), 0.1, 1e-3);
  config.max_steps = 1;
  EXPECT_GT(learning_rate(config, 1), 0);
}

}  // namespace
}  // namespace memslot
