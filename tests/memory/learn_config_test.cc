#include "shared/memory/learn_config.h"

#include <gtest/gtest.h>

#include "tests/support/deep_json.h"

namespace memslot {
namespace {

TEST(LearnConfigs, AbsentNamesTakeTheirDefaults) {
  for (const char* text : {"{}", ""}) {
    const auto config = learn_config_from_json(text);
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(to_json(config.value()), to_json(LearnConfig{}));
  }
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
    ::testing::Values(
        "[]", "3", "{", R"({"unknown":1})", R"({"kind":"titans"})", R"({"kind":7})",
        R"({"segments":"both"})", R"({"dtype":"f16"})", R"({"rank":0})", R"({"rank":2.5})",
        R"({"rank":257})", R"({"rank":"16"})", R"({"layer":-2})", R"({"seed":-1})",
        // A client's NaN and infinity arrive as null, as bare words or as what overflows.
        R"({"lr":null})", R"({"lr":NaN})", R"({"lr":Infinity})", R"({"lr":1e999})",
        R"({"lr":-0.1})", R"({"lr":2})", R"({"lr":1e-300})", R"({"max_steps":-1})",
        R"({"max_steps":1e9})", R"({"max_steps":null})", R"({"target_recall":1.1})",
        R"({"target_recall":null})", R"({"alpha":0})", R"({"alpha":-16})", R"({"alpha":1e999})",
        R"({"anchor":null})", R"({"anchor":-2})", R"({"weight_decay":-1})",
        R"({"weight_decay":1e-60})", R"({"window_words":3})", R"({"stride_words":0})",
        R"({"stride_words":33})", R"({"warmup_share":-1})", R"({"warmup_share":null})",
        R"({"alone_share":2})"));

TEST(LearnConfigs, WhatNestsTooDeeplyIsRefused) {
  const auto config = learn_config_from_json(deep_json(R"({"lr":)", "}"));
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
}

TEST(LearnConfigs, EveryKindThatCanBeLearnedMayBeAskedFor) {
  for (const char* kind : {"mlp", "lora", "delta"}) {
    const auto config = learn_config_from_json(R"({"kind":")" + std::string(kind) + "\"}");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(memory_kind_name(config.value().kind), kind);
  }
}

}  // namespace
}  // namespace memslot
