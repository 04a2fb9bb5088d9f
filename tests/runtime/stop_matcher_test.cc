#include "generator/runtime/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace memslot {
namespace {

StopMatcher make(std::vector<std::string> stops) {
  return StopMatcher::make(std::move(stops)).value();
}

TEST(StopMatcher, FindsAStopStringSpreadOverPieces) {
  auto m = make({"</s>"});
  EXPECT_EQ(m.push("text <"), "text ");
  EXPECT_EQ(m.push("/"), "");
  EXPECT_EQ(m.push("s> more"), "");
  EXPECT_TRUE(m.stopped());
  EXPECT_EQ(m.match(), 0);
  EXPECT_EQ(m.push("still more"), "");
  EXPECT_EQ(m.finish(), "");
}

TEST(StopMatcher, GivesOutWhatTurnedOutNotToBeOne) {
  auto m = make({"</s>"});
  EXPECT_EQ(m.push("a </"), "a ");
  EXPECT_EQ(m.push("b>"), "</b>");
  EXPECT_FALSE(m.stopped());
}

TEST(StopMatcher, HoldsNothingBackWithoutStopStrings) {
  auto m = make({});
  EXPECT_EQ(m.push("anything"), "anything");
  EXPECT_EQ(m.finish(), "");
}

TEST(StopMatcher, GivesOutThePartialMatchAtTheEnd) {
  auto m = make({"stop"});
  EXPECT_EQ(m.push("a sto"), "a ");
  EXPECT_EQ(m.finish(), "sto");
  EXPECT_EQ(m.finish(), "");
  EXPECT_FALSE(m.stopped());
}

TEST(StopMatcher, TakesTheMatchThatEndsFirstThenTheLongest) {
  auto first = make({"abcd", "bc"});
  EXPECT_EQ(first.push("xabcd"), "xa");
  EXPECT_EQ(first.match(), 1);
  auto longest = make({"c", "bc"});
  EXPECT_EQ(longest.push("abcd"), "a");
  EXPECT_EQ(longest.match(), 1);
}

TEST(StopMatcher, DoesNotDependOnHowTheTextIsCut) {
  std::mt19937 rng(9);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) text += static_cast<char>('a' + static_cast<int>(rng() % 3));
    const std::vector<std::string> stops{"abab", "bca", "aaa", "ab"};
    const std::vector<std::string> some(stops.begin(),
                                        stops.begin() + static_cast<std::ptrdiff_t>(1 + rng() % 4));
    auto whole = make(some), pieces = make(some);
    std::string want = whole.push(text);
    want += whole.finish();
    std::string got;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + rng() % 4;
      got += pieces.push(std::string_view(text).substr(at, n));
      at += n;
    }
    got += pieces.finish();
    EXPECT_EQ(got, want) << text;
    EXPECT_EQ(pieces.match(), whole.match()) << text;
    EXPECT_TRUE(text.starts_with(got));
  }
}

TEST(StopMatcher, RefusesStringsOutOfBounds) {
  EXPECT_EQ(StopMatcher::make({""}).error().message,
            "bytes of a stop string: expected 1 to 1024, found 0");
  EXPECT_EQ(StopMatcher::make({std::string(1025, 'x')}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(StopMatcher::make({std::string(1024, 'x')}));
  EXPECT_EQ(StopMatcher::make(std::vector<std::string>(17, "x")).error().message,
            "stop strings: expected at most 16, found 17");
}

}  // namespace
}  // namespace memslot
