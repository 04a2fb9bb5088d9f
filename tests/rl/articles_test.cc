#include "rl/articles.h"

#include <gtest/gtest.h>

namespace memslot {
namespace {

constexpr const char* kText =
    " \n = First One = \n \n Words of it . \n \n = = A section = = \n \n More . \n"
    " = Second = \n \n Its words = not a title . \n";

TEST(Articles, AreCutAtTitlesAndKeepTheirSections) {
  const auto cut = cut_articles(kText);
  ASSERT_TRUE(cut) << cut.error().message;
  ASSERT_EQ(cut.value().size(), 2u);
  EXPECT_EQ(cut.value()[0].title, "First One");
  EXPECT_EQ(cut.value()[1].title, "Second");
  EXPECT_EQ(cut.value()[0].text.substr(0, 16), " = First One = \n");
  EXPECT_NE(cut.value()[0].text.find("A section"), std::string::npos);
  EXPECT_EQ(cut.value()[1].text, " = Second = \n \n Its words = not a title . \n");
}

TEST(Articles, ATextThatIsCutOffOrNoneIsRefused) {
  const auto refused = [](std::string_view text, ErrorCode code, const char* what) {
    const auto cut = cut_articles(text);
    ASSERT_FALSE(cut) << what;
    EXPECT_EQ(cut.error().code, code) << what;
    EXPECT_NE(cut.error().message.find(what), std::string::npos) << cut.error().message;
  };
  const std::string whole = kText;
  refused(std::string_view(whole).substr(0, whole.size() - 20), ErrorCode::kCorruption, "cut off");
  refused("", ErrorCode::kInvalidArgument, "articles");
  refused("Only prose.\nNo title.\n", ErrorCode::kInvalidArgument, "' = Title = '");
  refused(" = T = \n caf\xe9 \n", ErrorCode::kInvalidArgument, "UTF-8");
  refused(" = = Only a section = = \n", ErrorCode::kInvalidArgument, "' = Title = '");
}

TEST(TokenText, WordsAreKnownAsBytesAndTokens) {
  const auto made = TokenText::make(" One two\n\nthree ", {5, 6, 7, 8, 9, 4},
                                    {" One", " t", "wo", "\n\n", "three", " "});
  ASSERT_TRUE(made) << made.error().message;
  const TokenText& text = made.value();
  ASSERT_EQ(text.words.size(), 3u);
  EXPECT_EQ(text.text.substr(text.words[1].begin, text.words[1].end - text.words[1].begin), "two");
  EXPECT_EQ(text.words[1].token, 1u);
  EXPECT_EQ(text.words[2].token, 4u);
  EXPECT_EQ(text.word_at(2), 2u);
  EXPECT_EQ(text.word_at(1), 1u);
  EXPECT_EQ(text.word_at(5), 3u);
  EXPECT_EQ(text.token_of(3), 6u);
}

TEST(TokenText, PiecesThatDisagreeWithTheTextAreCorrupt) {
  EXPECT_EQ(TokenText::make("a b", {1}, {"a", " b"}).error().code, ErrorCode::kCorruption);
  EXPECT_EQ(TokenText::make("a b", {1, 2}, {"a", "b"}).error().code, ErrorCode::kCorruption);
  EXPECT_EQ(TokenText::make("a b", {1, 2}, {"a b", " c"}).error().code, ErrorCode::kCorruption);
}

TEST(TokenText, ACharacterThatSeveralTokensShareIsOneWord) {
  const auto made =
      TokenText::make("\xe6\x97\xa5 x", {1, 2, 3}, {"\xef\xbf\xbd", "\xef\xbf\xbd", " x"});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made.value().words[1].token, 2u);
}

}  // namespace
}  // namespace memslot
