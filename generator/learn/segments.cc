#include "generator/learn/segments.h"

#include <algorithm>

#include "shared/memory/word_windows.h"

namespace memslot {

Result<SegmentedText> segment_text(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<WordRange> words = words_of(text);
  if (words.empty()) return invalid("source text", "at least one word", "none");
  SegmentedText out;
  out.words = std::ssize(words);
  MEMSLOT_TRY(out.tokens, tokenizer.encode(text));
  std::size_t byte = 0, word = 0;
  for (const std::int32_t id : out.tokens) {
    MEMSLOT_TRY(const std::string piece, tokenizer.decode(std::span(&id, 1)));
    byte += piece.size();
    while (word + 1 < words.size() && words[word].end < byte) ++word;
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
  const auto token_at = [&](std::int64_t word) {
    return std::ranges::lower_bound(text.word_of, word) - text.word_of.begin();
  };
  std::vector<TokenRange> out;
  for (const WordWindow& w : word_windows(text.words, window, stride)) {
    const std::int64_t from = token_at(w.first), to = token_at(w.last);
    if (to > from) out.push_back({from, to - from});
  }
  return out;
}

}  // namespace memslot
