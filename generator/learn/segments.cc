#include "generator/learn/segments.h"

#include <algorithm>

namespace memslot {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::vector<std::size_t> word_ends(std::string_view text) {
  std::vector<std::size_t> ends;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool last = i + 1 == text.size() || is_space(text[i + 1]);
    if (!is_space(text[i]) && last) ends.push_back(i + 1);
  }
  return ends;
}

}  // namespace

Result<SegmentedText> segment_text(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<std::size_t> ends = word_ends(text);
  if (ends.empty()) return invalid("source text", "at least one word", "none");
  SegmentedText out;
  out.words = std::ssize(ends);
  MEMSLOT_TRY(out.tokens, tokenizer.encode(text));
  std::size_t byte = 0, word = 0;
  for (const std::int32_t id : out.tokens) {
    MEMSLOT_TRY(const std::string piece, tokenizer.decode(std::span(&id, 1)));
    byte += piece.size();
    while (word + 1 < ends.size() && ends[word] < byte) ++word;
    out.word_of.push_back(static_cast<std::int64_t>(word));
  }
  if (tokenizer.add_bos() && tokenizer.bos() >= 0) {
    out.tokens.insert(out.tokens.begin(), tokenizer.bos());
    out.word_of.insert(out.word_of.begin(), 0);
  }
  return out;
}

std::vector<TokenRange> windows(const SegmentedText& text, std::int64_t window,
                                std::int64_t stride) {
  MEMSLOT_CHECK(stride >= 1 && stride <= window);
  const auto token_at = [&](std::int64_t word) {
    return std::ranges::lower_bound(text.word_of, word) - text.word_of.begin();
  };
  std::vector<TokenRange> out;
  for (std::int64_t first = 0;; first += stride) {
    const bool last = first + window >= text.words;
    if (last) first = std::max<std::int64_t>(0, text.words - window);
    const std::int64_t from = token_at(first), to = token_at(first + window);
    if (to > from) out.push_back({from, to - from});
    if (last) return out;
  }
}

}  // namespace memslot
