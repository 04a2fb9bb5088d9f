// The tokenizer against ids that two published implementations agree on, over the default model.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "generator/model/model_file.h"
#include "generator/model/tokenizer.h"
#include "generator/model/unicode.h"
#include "tests/support/fixture.h"
#include "tests/support/model_path.h"

namespace memslot {
namespace {

using testing_support::fixtures_matching;

struct Case {
  std::string text;
  std::vector<std::int32_t> ids;
  std::string decoded;
};

std::vector<Case> read_cases(const std::string& pattern) {
  std::vector<Case> out;
  for (const auto& path : fixtures_matching(pattern)) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      const auto json = nlohmann::json::parse(line);
      out.push_back({json["text"], json["ids"], json["decoded"]});
    }
  }
  return out;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, EncodesAndDecodesEveryCaseExactly) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const auto model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().message;
  const auto tokenizer = Tokenizer::make(model.value().tokenizer());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto cases = read_cases(GetParam());
  ASSERT_GE(cases.size(), 40U);
  for (const auto& c : cases) {
    const auto ids = tokenizer.value().encode(c.text, {.parse_special = true});
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(ids.value(), c.ids) << c.text;
    const auto text = tokenizer.value().decode(c.ids);
    ASSERT_TRUE(text);
    EXPECT_EQ(to_valid_utf8(text.value()), c.decoded);
  }
}

TEST_P(TokenizerGolden, StreamsTheSameTextTokenByToken) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const auto model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().message;
  const auto tokenizer = Tokenizer::make(model.value().tokenizer());
  ASSERT_TRUE(tokenizer);
  for (const auto& c : read_cases(GetParam())) {
    StreamDecoder decoder(tokenizer.value());
    std::string streamed;
    for (const auto id : c.ids) {
      const auto piece = decoder.push(id);
      ASSERT_TRUE(piece);
      EXPECT_FALSE(first_invalid_utf8(piece.value()));
      streamed += piece.value();
    }
    EXPECT_EQ(streamed + decoder.finish(), c.decoded);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerGolden,
                         testing::Values("tokenizer.jsonl", "tokenizer_digits.jsonl"),
                         [](const auto& c) {
                           return std::string(c.index == 0 ? "Texts" : "Digits");
                         });

// Merging pair by pair from the left would take hours for a piece of a megabyte: ctest's time limit
// is the bound.
TEST(TokenizerGolden, EncodesAMegabyteOfOneLetterBeforeTheTimeLimit) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const auto model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().message;
  const auto tokenizer = Tokenizer::make(model.value().tokenizer());
  ASSERT_TRUE(tokenizer);
  for (const char* piece : {"a", " ", "5", "\xE2\x82\xAC", "ab ", "\n"}) {
    std::string text;
    while (text.size() < 1'000'000) text += piece;
    const auto ids = tokenizer.value().encode(text);
    ASSERT_TRUE(ids);
    EXPECT_EQ(tokenizer.value().decode(ids.value()).value(), text) << "piece '" << piece << "'";
  }
}

}  // namespace
}  // namespace memslot
