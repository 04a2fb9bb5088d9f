#include "generator/model/tokenizer_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using testing::HasSubstr;
using testing_support::TemporaryFolder;

constexpr const char* kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})";

std::string tokenizer_json(const std::string& pre, const std::string& model_extra = "") {
  return R"({"normalizer":null,"pre_tokenizer":)" + pre +
         R"(,"added_tokens":[{"id":3,"content":"<|end|>","special":true},)"
         R"({"id":4,"content":"[[x]]","special":false}],
         "model":{"type":"BPE",)" +
         model_extra + R"("vocab":{"b":1,"a":0,"ab":2},"merges":["a b"]}})";
}

TEST(TokenizerJson, ReadsVocabularyMergesAndAddedTokens) {
  const auto spec = tokenizer_from_json(tokenizer_json(kByteLevel));
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec.value().tokens, (std::vector<std::string>{"a", "b", "ab", "<|end|>", "[[x]]"}));
  EXPECT_EQ(spec.value().types[2], TokenType::kNormal);
  EXPECT_EQ(spec.value().types[3], TokenType::kControl);
  EXPECT_EQ(spec.value().types[4], TokenType::kUserDefined);
  EXPECT_EQ(spec.value().merges, std::vector<std::string>{"a b"});
  EXPECT_EQ(spec.value().pre, PreTokenizer::kGpt2);
}

TEST(TokenizerJson, KnowsSmolLmsDigitsAndNewerMerges) {
  auto text = tokenizer_json(
      R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)" +
      std::string(kByteLevel) + "]}");
  text.replace(text.find(R"(["a b"])"), 7, R"([["a","b"]])");
  const auto spec = tokenizer_from_json(text);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec.value().pre, PreTokenizer::kSmolLm);
  EXPECT_EQ(spec.value().merges, std::vector<std::string>{"a b"});
}

TEST(TokenizerJson, RefusesWhatItCannotDoExactly) {
  const auto message = [](const std::string& text) {
    return tokenizer_from_json(text).error().message;
  };
  EXPECT_THAT(message("{"), HasSubstr("expected a JSON object, found no JSON"));
  EXPECT_THAT(message(R"({"model":{"type":"Unigram"}})"),
              HasSubstr("model type: expected BPE, found \"Unigram\""));
  EXPECT_THAT(message(tokenizer_json(R"({"type":"Whitespace"})")),
              HasSubstr("pre_tokenizer: expected ByteLevel"));
  EXPECT_THAT(message(tokenizer_json(R"({"type":"ByteLevel","add_prefix_space":true})")),
              HasSubstr("pre_tokenizer"));
  EXPECT_THAT(message(tokenizer_json(kByteLevel, R"("byte_fallback":true,)")),
              HasSubstr("byte_fallback: expected false"));
  EXPECT_THAT(message(tokenizer_json(kByteLevel, R"("ignore_merges":true,)")),
              HasSubstr("ignore_merges: expected false"));
  auto text = tokenizer_json(kByteLevel);
  EXPECT_THAT(message(text.replace(text.find("null"), 4, R"({"type":"NFC"})")),
              HasSubstr("normalizer: expected none"));
  text = tokenizer_json(kByteLevel);
  EXPECT_THAT(message(text.replace(text.find(R"("special":true)"), 14, R"("lstrip":true)")),
              HasSubstr("lstrip: expected false"));
}

TEST(TokenizerJson, RefusesIdsThatDoNotFit) {
  auto text = tokenizer_json(kByteLevel);
  text.replace(text.find("\"b\":1"), 5, "\"b\":0");
  EXPECT_THAT(tokenizer_from_json(text).error().message, HasSubstr("token of id 0"));
  text = tokenizer_json(kByteLevel);
  text.replace(text.find("\"b\":1"), 5, "\"b\":99999999");
  EXPECT_THAT(tokenizer_from_json(text).error().message, HasSubstr("id of token 'b'"));
  text = tokenizer_json(kByteLevel);
  text.replace(text.find("\"b\":1"), 5, "\"b\":-1");
  EXPECT_THAT(tokenizer_from_json(text).error().message, HasSubstr("id of token 'b'"));
}

TEST(VocabAndMerges, AreReadWithOrWithoutAVersionLine) {
  for (const char* merges : {"#version: 0.2\na b\n# #\n", "a b\r\n# #", "a b\n# #\n\n"}) {
    const auto spec = tokenizer_from_vocab(R"({"a":0,"b":1,"ab":2,"#":3,"##":4})", merges);
    ASSERT_TRUE(spec) << spec.error().message;
    EXPECT_EQ(spec.value().merges, (std::vector<std::string>{"a b", "# #"}));
    EXPECT_EQ(spec.value().tokens.size(), 5U);
  }
}

TEST(TokenizerFolder, TakesSpecialIdsFromTheConfig) {
  TemporaryFolder folder;
  folder.write("vocab.json", R"({"a":0,"b":1,"<|endoftext|>":2})");
  folder.write("merges.txt", "#version: 0.2\n");
  ModelConfig config;
  config.bos = config.eos = 2;
  const auto spec = tokenizer_from_folder(folder.path(), config);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec.value().types[2], TokenType::kControl);
  EXPECT_EQ(spec.value().eos, 2);
}

TEST(TokenizerFolder, WithoutTokenizerFilesIsEmptyAndWithoutMergesAnError) {
  TemporaryFolder folder;
  EXPECT_TRUE(tokenizer_from_folder(folder.path(), {}).value().tokens.empty());
  folder.write("vocab.json", R"({"a":0})");
  const auto spec = tokenizer_from_folder(folder.path(), {});
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(spec.error().message, HasSubstr("merges.txt"));
}

}  // namespace
}  // namespace memslot
