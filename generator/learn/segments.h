#pragma once
// A source cut into segments: windows of words, mapped to ranges of the whole text's tokens.
//
// The text is tokenized once, as generation reads it; a window is a range of those tokens, never
// tokenized apart (its first token keeps the space before it).
//
// Words and windows are those of shared/memory/word_windows.h. A token belongs to the first word
// that ends after the token's last byte, white space in front of a word thus to that word; tokens
// after the last word belong to the last word.
//
// Threads: pure functions.
#include <cstdint>
#include <string_view>
#include <vector>

#include "generator/model/tokenizer.h"
#include "shared/base/error.h"

namespace memslot {

struct TokenRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

struct SegmentedText {
  std::vector<std::int32_t> tokens;   // with bos in front where the tokenizer asks for it
  std::vector<std::int64_t> word_of;  // per token; never decreasing
  std::int64_t words = 0;
};

// kInvalidArgument: not UTF-8, or no word at all.
Result<SegmentedText> segment_text(const Tokenizer& tokenizer, std::string_view text);

// The windows as ranges of tokens; one without a token of its own is left out.
// REQUIRES: 1 <= stride <= window.
std::vector<TokenRange> windows(const SegmentedText& text, std::int64_t window,
                                std::int64_t stride);

}  // namespace memslot
