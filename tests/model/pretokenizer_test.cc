#include "generator/model/pretokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "generator/model/unicode.h"

namespace memslot {
namespace {

std::vector<std::string> words(PreTokenizer rule, const std::string& text) {
  std::vector<std::string_view> views;
  WordSplitter(rule).split(text, views);
  return {views.begin(), views.end()};
}

using Words = std::vector<std::string>;

TEST(Gpt2Words, CutsLettersNumbersAndMarksWithTheirLeadingSpace) {
  EXPECT_EQ(words(PreTokenizer::kGpt2, "Hello, world 42!"),
            (Words{"Hello", ",", " world", " 42", "!"}));
}

TEST(Gpt2Words, CutsContractionsInLowerCaseOnly) {
  EXPECT_EQ(words(PreTokenizer::kGpt2, "we'll I'M it's"),
            (Words{"we", "'ll", " I", "'", "M", " it", "'s"}));
}

TEST(Gpt2Words, LeavesTheLastSpaceOfARunToTheNextWord) {
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a   b"), (Words{"a", "  ", " b"}));
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a   "), (Words{"a", "   "}));
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a\n\nb"), (Words{"a", "\n", "\n", "b"}));
}

TEST(Gpt2Words, KnowsUnicodeLettersAndSpaces) {
  EXPECT_EQ(words(PreTokenizer::kGpt2, "é日本 ½"), (Words{"é日本", " ½"}));
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a\u00A0b"), (Words{"a", "\u00A0", "b"}));
  // U+180E has not been White_Space since Unicode 6.3, though PCRE2's \s still takes it.
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a\u180E\u180Eb"), (Words{"a", "\u180E\u180E", "b"}));
  EXPECT_EQ(words(PreTokenizer::kGpt2, "a\u200Bb"), (Words{"a", "\u200B", "b"}));
}

TEST(SmolLmWords, IsolatesEveryDigitBeforeTheRest) {
  EXPECT_EQ(words(PreTokenizer::kSmolLm, "x 12"), (Words{"x", " ", "1", "2"}));
  EXPECT_EQ(words(PreTokenizer::kSmolLm, "a   42 b"), (Words{"a", "   ", "4", "2", " b"}));
  EXPECT_EQ(words(PreTokenizer::kSmolLm, "a ½b"), (Words{"a", " ", "½", "b"}));
}

TEST(Words, JoinedAreTheTextWhateverItIs) {
  const std::vector<std::string> pieces{"a",      " ",      "\n",     "7",
                                        "½",      "'s",     "'",      "é",
                                        "😀",      "\u00A0", "\u0301", std::string(1, '\0'),
                                        "\u180E", "\x7F",   "ßt",     "٣"};
  std::mt19937 rng(7);
  for (const auto rule : {PreTokenizer::kGpt2, PreTokenizer::kSmolLm}) {
    for (int round = 0; round < 300; ++round) {
      std::string text, joined;
      for (auto n = rng() % 20; n > 0; --n) text += pieces[rng() % pieces.size()];
      for (const auto& word : words(rule, text)) {
        EXPECT_FALSE(word.empty());
        EXPECT_FALSE(first_invalid_utf8(word)) << "a character was cut apart";
        joined += word;
      }
      EXPECT_EQ(joined, text);
    }
  }
}

}  // namespace
}  // namespace memslot
