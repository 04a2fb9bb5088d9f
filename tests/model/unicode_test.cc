#include "generator/model/unicode.h"

#include <gtest/gtest.h>

#include <set>

namespace memslot {
namespace {

TEST(ByteAlphabet, SpellsEachByteByItsOwnCharacterAndBack) {
  std::set<char32_t> seen;
  for (int b = 0; b < 256; ++b) {
    const char32_t symbol = byte_symbol(static_cast<std::uint8_t>(b));
    EXPECT_TRUE(seen.insert(symbol).second) << b;
    EXPECT_EQ(symbol_byte(symbol), b);
  }
  EXPECT_EQ(byte_symbol('A'), U'A');
  EXPECT_EQ(byte_symbol(' '), U'\u0120');
  EXPECT_EQ(byte_symbol('\n'), U'\u010A');
  EXPECT_EQ(byte_symbol(0xFF), U'\u00FF');
}

TEST(ByteAlphabet, HasNoByteForAnyOtherCharacter) {
  int spelled = 0;
  for (char32_t code = 0; code < 0x3000; ++code) spelled += symbol_byte(code) >= 0 ? 1 : 0;
  EXPECT_EQ(spelled, 256);
  EXPECT_EQ(symbol_byte(U' '), -1);
}

struct Utf8Case {
  const char* name;
  std::string text;
  const char* repaired;  // as Python's bytes.decode("utf-8", "replace")
};

class Utf8 : public testing::TestWithParam<Utf8Case> {};

TEST_P(Utf8, RepairsAsTheUnicodeStandardRecommends) {
  EXPECT_EQ(to_valid_utf8(GetParam().text), GetParam().repaired);
  EXPECT_EQ(first_invalid_utf8(GetParam().text).has_value(),
            GetParam().text != GetParam().repaired);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Utf8,
    testing::Values(Utf8Case{"Empty", "", ""}, Utf8Case{"Ascii", "abc", "abc"},
                    Utf8Case{"TwoToFourBytes", "é€😀", "é€😀"},
                    Utf8Case{"LastCodePoint", "\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
                    Utf8Case{"AboveLastCodePoint", "\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
                    Utf8Case{"OverlongSlash", "\xC0\xAF", "\uFFFD\uFFFD"},
                    Utf8Case{"OverlongThree", "\xE0\x80\xAF", "\uFFFD\uFFFD\uFFFD"},
                    Utf8Case{"Surrogate", "\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},
                    Utf8Case{"LoneContinuation",
                             "a\x80"
                             "b",
                             "a\uFFFD"
                             "b"},
                    Utf8Case{"CutShortInside",
                             "\xE2\x82"
                             "a",
                             "\uFFFD"
                             "a"},
                    Utf8Case{"CutShortAtEnd", "a\xF0\x9F\x98", "a\uFFFD"}),
    [](const auto& c) { return c.param.name; });

TEST(Utf8, TellsUnfinishedFromInvalid) {
  EXPECT_EQ(utf8_at("\xF0\x9F\x98", 0).kind, Utf8Char::Kind::kUnfinished);
  EXPECT_EQ(utf8_at("\xF0\x9F\x98\x80", 0).kind, Utf8Char::Kind::kWhole);
  EXPECT_EQ(utf8_at("\xF0\x9F\x98\x80", 0).code, U'\U0001F600');
  EXPECT_EQ(utf8_at("\xF0\x28", 0).kind, Utf8Char::Kind::kInvalid);
  EXPECT_EQ(utf8_at("\xE0\x80", 0).kind, Utf8Char::Kind::kInvalid) << "it can never become whole";
}

TEST(Utf8, WritesWhatItReads) {
  for (const char32_t code : {U'\x01', U'\x7F', U'\u0080', U'\u07FF', U'\u0800', U'\uFFFD',
                              U'\U00010000', U'\U0010FFFF'}) {
    std::string text;
    append_utf8(code, text);
    const auto read = utf8_at(text, 0);
    EXPECT_EQ(read.kind, Utf8Char::Kind::kWhole);
    EXPECT_EQ(read.code, code);
    EXPECT_EQ(read.bytes, text.size());
  }
}

}  // namespace
}  // namespace memslot
