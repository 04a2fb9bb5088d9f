#pragma once
// Texts as sources of streams: a file in WikiText's form cut into articles, and a text whose words
// are known both as bytes and as tokens.
//
//   " = Title = "        begins an article (two or more '=' a section of it)
//
// Errors:  kInvalidArgument (no article, not UTF-8), kCorruption (the file ends within a line: it
//          was cut off; words of text and tokens that disagree).
// Threads: pure functions.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

struct Article {
  std::string title;
  std::string text;  // with its title line
};
Result<std::vector<Article>> cut_articles(std::string_view text);

// A maximal run of bytes that are not white space.
struct Word {
  std::size_t begin = 0, end = 0;  // bytes of the text
  std::size_t token = 0;           // in which it begins
};

struct TokenText {
  std::string text;
  std::vector<std::int32_t> ids;
  std::vector<Word> words;

  // `pieces`: what each token stands for, as `tokenize` tells it (a cut character may be replaced
  // by another one that is no white space).
  static Result<TokenText> make(std::string text, std::vector<std::int32_t> ids,
                                const std::vector<std::string>& pieces);
  // The first word that begins in `token` or later; words.size() if none does.
  std::size_t word_at(std::size_t token) const;
  // Where word `w` begins; the end for words.size().
  std::size_t token_of(std::size_t w) const {
    return w < words.size() ? words[w].token : ids.size();
  }
};

}  // namespace memslot
