#include "generator/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "generator/model/unicode.h"

namespace memslot {
namespace {

using Ids = std::vector<std::int32_t>;
using testing::HasSubstr;

// Bytes 0..255 are ids 0..255, then one token a merge, then the specials.
TokenizerSpec small_spec(const std::vector<std::string>& merges = {"h e", "l l", "he ll", "hell o",
                                                                   "a a"}) {
  TokenizerSpec spec;
  for (int b = 0; b < 256; ++b) {
    append_utf8(byte_symbol(static_cast<std::uint8_t>(b)), spec.tokens.emplace_back());
  }
  spec.merges = merges;
  for (const auto& merge : merges) {
    std::string joined = merge;
    std::erase(joined, ' ');
    spec.tokens.push_back(joined);
  }
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const char* special : {"<|end|>", "<|end|>more"}) {
    spec.tokens.push_back(special);
    spec.types.push_back(TokenType::kControl);
  }
  spec.tokens.push_back("[[tool]]");
  spec.types.push_back(TokenType::kUserDefined);
  spec.bos = static_cast<int>(256 + merges.size());
  spec.eos = spec.bos;
  return spec;
}

Tokenizer make(const TokenizerSpec& spec) { return std::move(Tokenizer::make(spec).value()); }

TEST(Tokenizer, JoinsByRankNotByPlace) {
  const auto t = make(small_spec());
  EXPECT_EQ(t.encode("hello").value(), Ids{259});
  EXPECT_EQ(t.encode("hell").value(), Ids{258});
  EXPECT_EQ(t.encode("helo").value(), (Ids{256, 'l', 'o'}));
  EXPECT_EQ(t.encode("aaa").value(), (Ids{260, 'a'})) << "of equal ranks the leftmost";
  EXPECT_EQ(t.encode("").value(), Ids{});
}

TEST(Tokenizer, NeverJoinsAcrossWords) {
  auto spec = small_spec({"o Ġ", "Ġ w"});
  EXPECT_EQ(make(spec).encode("o w").value(), (Ids{'o', 257}));
}

TEST(Tokenizer, RecognisesControlTokensOnlyWhenAsked) {
  const auto t = make(small_spec());
  EXPECT_EQ(t.encode("a<|end|>b", {.parse_special = true}).value(), (Ids{'a', 261, 'b'}));
  EXPECT_EQ(t.encode("<|end|>more", {.parse_special = true}).value(), Ids{262}) << "the longest";
  EXPECT_EQ(t.encode("<|end|>").value(), (Ids{'<', '|', 'e', 'n', 'd', '|', '>'}));
  EXPECT_EQ(t.encode("<|end", {.parse_special = true}).value(), (Ids{'<', '|', 'e', 'n', 'd'}));
}

TEST(Tokenizer, AlwaysRecognisesUserDefinedTokens) {
  EXPECT_EQ(make(small_spec()).encode("x[[tool]]").value(), (Ids{'x', 263}));
}

TEST(Tokenizer, PutsBosInFrontOnlyWhenAsked) {
  auto spec = small_spec();
  EXPECT_EQ(make(spec).encode("a", {.add_bos = true}).value(), (Ids{261, 'a'}));
  spec.bos = -1;
  EXPECT_EQ(make(spec).encode("a", {.add_bos = true}).value(), Ids{'a'});
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8AndSaysWhere) {
  const auto ids = make(small_spec()).encode("ab\xFFz");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ids.error().message, "text at byte 2: expected UTF-8, found byte 255");
}

TEST(Tokenizer, RefusesToDecodeIdsOutsideTheVocabulary) {
  const auto t = make(small_spec());
  for (const std::int32_t id : {-1, t.vocab()}) {
    const auto text = t.decode(Ids{'a', id});
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(text.error().message, HasSubstr("expected 0 to 263"));
  }
}

TEST(Tokenizer, LeavesOutBytesThatTheVocabularyCannotSpell) {
  auto spec = small_spec();
  spec.types[4] = TokenType::kUnused;
  const auto t = make(spec);
  EXPECT_EQ(t.encode("a\x04z").value(), (Ids{'a', 'z'}));
  EXPECT_EQ(t.encode("\x04").value(), Ids{});
}

// The definition, word by word: join the best pair everywhere, from the left, until none is left.
Ids by_definition(const TokenizerSpec& spec, const std::string& word) {
  std::vector<std::string> symbols;
  for (const char c : word)
    append_utf8(byte_symbol(static_cast<std::uint8_t>(c)), symbols.emplace_back());
  for (;;) {
    auto best = spec.merges.end();
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      best = std::min(best, std::find(spec.merges.begin(), spec.merges.end(),
                                      symbols[i] + " " + symbols[i + 1]));
    }
    if (best == spec.merges.end()) break;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (symbols[i] + " " + symbols[i + 1] != *best) continue;
      symbols[i] += symbols[i + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
  }
  Ids ids;
  for (const auto& symbol : symbols) {
    const auto at = std::find(spec.tokens.begin(), spec.tokens.end(), symbol);
    ids.push_back(static_cast<std::int32_t>(at - spec.tokens.begin()));
  }
  return ids;
}

TEST(Tokenizer, AgreesWithTheDefinitionOnRandomWords) {
  const auto spec =
      small_spec({"a b", "b a", "ab a", "a a", "aa aa", "c ab", "ab ab", "abab abab", "b b"});
  const auto t = make(spec);
  std::mt19937 rng(3);
  for (int round = 0; round < 500; ++round) {
    std::string word;
    for (auto n = 1 + rng() % 30; n > 0; --n)
      word += static_cast<char>('a' + static_cast<int>(rng() % 3));
    EXPECT_EQ(t.encode(word).value(), by_definition(spec, word)) << word;
    EXPECT_EQ(t.encode(word).value(), by_definition(spec, word)) << word << " from the cache";
  }
}

TEST(Tokenizer, EncodesFromSeveralThreadsAlike) {
  const auto t = make(small_spec());
  std::vector<std::thread> threads;
  std::array<Ids, 4> got;
  for (std::size_t i = 0; i < got.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 200; ++round) got[i] = t.encode("hello aaa helo hell").value();
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, got[0]);
}

struct BadSpec {
  const char* name;
  ErrorCode code;
  const char* message;
  void (*spoil)(TokenizerSpec&);
};
class BadTokenizer : public testing::TestWithParam<BadSpec> {};

TEST_P(BadTokenizer, IsRefusedWithItsReason) {
  auto spec = small_spec();
  GetParam().spoil(spec);
  const auto t = Tokenizer::make(spec);
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().code, GetParam().code);
  EXPECT_THAT(t.error().message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Specs, BadTokenizer,
    testing::Values(
        BadSpec{"Missing", ErrorCode::kNotFound, "tokenizer: expected tokens and merges",
                [](TokenizerSpec& s) { s = {}; }},
        BadSpec{"TypesTooFew", ErrorCode::kCorruption, "token types: expected 264, found 263",
                [](TokenizerSpec& s) { s.types.pop_back(); }},
        BadSpec{"TokenTwice", ErrorCode::kCorruption, "token 'b': expected once, found twice",
                [](TokenizerSpec& s) { s.tokens['a'] = "b"; }},
        BadSpec{"TokenEmpty", ErrorCode::kCorruption, "spelling of token 97",
                [](TokenizerSpec& s) { s.tokens['a'].clear(); }},
        BadSpec{"MergeOfUnknown", ErrorCode::kCorruption, "merge 5: expected both spellings",
                [](TokenizerSpec& s) { s.merges.push_back("h q"); }},
        BadSpec{"MergeOfOne", ErrorCode::kCorruption, "merge 5: expected two spellings",
                [](TokenizerSpec& s) { s.merges.push_back("hello"); }},
        BadSpec{"MergeOfThree", ErrorCode::kCorruption, "merge 5: expected two spellings",
                [](TokenizerSpec& s) { s.merges.push_back("h e l"); }},
        BadSpec{"BosOutside", ErrorCode::kCorruption, "bos id",
                [](TokenizerSpec& s) { s.bos = 264; }},
        BadSpec{"NoBytes", ErrorCode::kCorruption, "tokens that spell a byte",
                [](TokenizerSpec& s) {
                  s.merges.clear();
                  s.tokens = {"<|end|>"};
                  s.types = {TokenType::kControl};
                  s.bos = s.eos = 0;
                }}),
    [](const auto& c) { return c.param.name; });

TEST(StreamDecoder, HoldsACharacterBackUntilItIsWhole) {
  const auto t = make(small_spec());
  StreamDecoder decoder(t);
  EXPECT_EQ(decoder.push(0xE2).value(), "");
  EXPECT_EQ(decoder.push(0x82).value(), "");
  EXPECT_EQ(decoder.push(0xAC).value(), "€");
  EXPECT_EQ(decoder.push('x').value(), "x");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, GivesOutAReplacementForWhatCanNotBecomeACharacter) {
  const auto t = make(small_spec());
  StreamDecoder decoder(t);
  EXPECT_EQ(decoder.push(0xE2).value(), "");
  EXPECT_EQ(decoder.push('a').value(), "\uFFFDa");
  EXPECT_EQ(decoder.push(0xF0).value(), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.push('b').value(), "b") << "finish() starts anew";
  EXPECT_FALSE(decoder.push(9999));
}

}  // namespace
}  // namespace memslot
