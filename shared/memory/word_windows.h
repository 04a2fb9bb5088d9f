#pragma once
// The words of a source, and the windows of words that it is cut into.
//
// Word:   a maximal run of bytes that are not ASCII white space.
// Window: `window` words every `stride` words; the last one ends with the text and is as long as
//         the others where the text allows.
//
// Threads: pure functions.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace memslot {

struct WordRange {
  std::size_t begin = 0, end = 0;  // bytes of the text
};
std::vector<WordRange> words_of(std::string_view text);

struct WordWindow {
  std::int64_t first = 0, last = 0;  // words, [first, last)
};
// REQUIRES: 1 <= stride <= window.
std::vector<WordWindow> word_windows(std::int64_t words, std::int64_t window, std::int64_t stride);

}  // namespace memslot
