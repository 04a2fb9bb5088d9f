#include "shared/memory/word_windows.h"

#include <algorithm>

#include "shared/base/error.h"

namespace memslot {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

std::vector<WordRange> words_of(std::string_view text) {
  std::vector<WordRange> out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_space(text[i])) continue;
    if (i == 0 || is_space(text[i - 1])) out.push_back({i, i});
    out.back().end = i + 1;
  }
  return out;
}

std::vector<WordWindow> word_windows(std::int64_t words, std::int64_t window, std::int64_t stride) {
  MEMSLOT_CHECK(stride >= 1 && stride <= window);
  std::vector<WordWindow> out;
  for (std::int64_t first = 0;; first += stride) {
    const bool last = first + window >= words;
    if (last) first = std::max<std::int64_t>(0, words - window);
    out.push_back({first, std::min(first + window, words)});
    if (last) return out;
  }
}

}  // namespace memslot
