#include "generator/runtime/task_arguments.h"

#include <gtest/gtest.h>

#include "tests/support/deep_json.h"

namespace memslot {
namespace {

ErrorCode code_of(const std::string& json) {
  const auto parsed = generate_arguments(json);
  EXPECT_FALSE(parsed.has_value()) << json;
  return parsed ? ErrorCode::kInternal : parsed.error().code;
}

TEST(TaskArguments, DefaultsAreTheDocumentedOnes) {
  const auto a = generate_arguments(R"({"prompt": "x"})").value();
  EXPECT_EQ(a.session.namespaces, std::vector<std::string>{"default"});
  EXPECT_EQ(a.session.memory.kind, MemoryChoice::Kind::kAuto);
  EXPECT_EQ(a.session.kv, wire::KvMode::kActivated);
  EXPECT_EQ(a.select, wire::SelectMode::kSync);
  EXPECT_EQ(a.max_tokens, 128);
  EXPECT_EQ(a.session.step_tokens, 16);
  EXPECT_EQ(a.sampling.temperature, 0);
  EXPECT_EQ(a.sampling.seed, 1u);
  EXPECT_EQ(a.deadline, std::chrono::milliseconds(1000));
  EXPECT_FALSE(a.write_back);
  EXPECT_EQ(score_arguments(R"({"text": "x"})").value().session.memory.kind,
            MemoryChoice::Kind::kBase);
}

TEST(TaskArguments, WhatNestsTooDeeplyIsRefused) {
  EXPECT_EQ(code_of(deep_json(R"({"prompt":"x","namespaces":[)", "]}")),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(deep_json(R"({"prompt":"x","unknown":)", "}")), ErrorCode::kInvalidArgument);
}

TEST(TaskArguments, AnUnknownNameIsRefusedAndNamed) {
  const auto parsed = generate_arguments(R"({"prompt": "x", "max_token": 3})");
  ASSERT_FALSE(parsed.has_value());
  EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(parsed.error().message.find("max_token"), std::string::npos);
  EXPECT_FALSE(no_arguments(R"({"x": 1})").has_value());
  EXPECT_TRUE(no_arguments("{}").has_value());
  EXPECT_TRUE(no_arguments("").has_value());
}

TEST(TaskArguments, WhatIsShownOfAWrongValueEndsWithAWholeCharacter) {
  std::string values;  // of ["... the 57th byte lies within one
  for (int i = 0; i < 60; ++i) values += "\u00e4";
  const auto parsed = generate_arguments("{\"prompt\": [\"" + values + "\"]}");
  ASSERT_FALSE(parsed.has_value());
  EXPECT_NE(parsed.error().message.find("\u00e4..."), std::string::npos) << parsed.error().message;
}

TEST(TaskArguments, BadValuesAreRefused) {
  for (const char* json : {R"({})",
                           R"([])",
                           R"({"prompt": 3})",
                           R"({"prompt": "x", "max_tokens": 0})",
                           "not json",
                           R"({"prompt": "x", "max_tokens": 1.5})",
                           R"({"prompt": "x", "temperature": -1})",
                           R"({"prompt": "x", "top_p": 0})",
                           R"({"prompt": "x", "kv": "cold"})",
                           R"({"prompt": "x", "select": "later"})",
                           R"({"prompt": "x", "memory": "a/b/c"})",
                           R"({"prompt": "x", "namespaces": ["Bad Name"]})",
                           R"({"prompt": "x", "stop": [""]})",
                           R"({"prompt": "x", "schedule": [{"step": 1}]})",
                           R"({"prompt": "x", "seed": -1})",
                           R"({"prompt": "x", "schedule": [{"step": 1, "memory": "auto"}]})",
                           R"({"prompt": "x", "schedule": [{"step": -1, "memory": "base"}]})",
                           R"({"prompt": "x", "deadline_ms": 0})",
                           R"({"prompt": "x", "step_tokens": 0})",
                           R"({"prompt": "x", "seed": 18446744073709551615})"}) {
    EXPECT_EQ(code_of(json), ErrorCode::kInvalidArgument) << json;
  }
}

TEST(TaskArguments, AMemoryIsNamedWithOrWithoutNamespaceAndVersion) {
  const auto a =
      generate_arguments(R"({"prompt": "", "namespaces": ["mine"], "memory": "x@3"})").value();
  EXPECT_EQ(a.session.memory.ref, (MemoryRef{"mine", "x", 3}));
  const auto b = generate_arguments(R"({"prompt": "", "memory": "ours/x"})").value();
  EXPECT_EQ(b.session.memory.ref, (MemoryRef{"ours", "x", 0}));
}

TEST(TaskArguments, AScheduleIsSortedAndStartsFromBaseUnlessAMemoryIsNamed) {
  const auto a = generate_arguments(R"({"prompt": "", "schedule": [{"step": 4, "memory": "base"}, )"
                                    R"({"step": 1, "memory": "a"}]})")
                     .value();
  EXPECT_EQ(a.session.memory.kind, MemoryChoice::Kind::kBase);
  ASSERT_EQ(a.schedule.size(), 2u);
  EXPECT_EQ(a.schedule[0].step, 1u);
  EXPECT_EQ(a.schedule[1].memory.kind, MemoryChoice::Kind::kBase);
}

TEST(TaskArguments, EitherTextOrIds) {
  EXPECT_FALSE(score_arguments("{}").has_value());
  EXPECT_FALSE(score_arguments(R"({"text": "x", "ids": [1]})").has_value());
  EXPECT_FALSE(score_arguments(R"({"ids": [-1]})").has_value());
  EXPECT_FALSE(score_arguments(R"({"ids": [1.5]})").has_value());
  EXPECT_EQ(score_arguments(R"({"ids": [1, 2]})").value().text.ids->size(), 2u);
  EXPECT_EQ(score_arguments(R"({"text": "x", "deadline_ms": 70})").value().deadline,
            std::chrono::milliseconds(70));
  EXPECT_FALSE(score_arguments(R"({"text": "x", "deadline_ms": 0})").has_value());
  EXPECT_FALSE(bench_arguments(R"({"what": "everything"})").has_value());
}

}  // namespace
}  // namespace memslot
