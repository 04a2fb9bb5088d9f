#pragma once
// Cutting text into the words that BPE works on.
//
//   GPT-2:   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   SmolLM:  every \p{N} alone first; GPT-2's rule on each fragment between, as if it were a whole
//            text (a run of spaces before a digit therefore stays whole)
//
// \s is Unicode White_Space. The words joined are the text.
//
// Threads: const calls from any thread.
#include <memory>
#include <string_view>
#include <vector>

#include "generator/model/tokenizer.h"
#include "shared/base/error.h"

namespace memslot {

class WordSplitter {
 public:
  explicit WordSplitter(PreTokenizer rule);
  WordSplitter(WordSplitter&&) noexcept;
  WordSplitter& operator=(WordSplitter&&) noexcept;
  ~WordSplitter();

  // Appends the words of `text`, which borrow from it. REQUIRES: valid UTF-8.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
