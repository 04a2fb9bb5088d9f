#include "rl/articles.h"

#include <algorithm>

namespace memslot {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view trimmed(std::string_view line) {
  while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
  while (!line.empty() && is_space(line.back())) line.remove_suffix(1);
  return line;
}

// The title in " = Title = "; "" for every other line.
std::string_view title_of(std::string_view line) {
  line = trimmed(line);
  if (line.size() < 5 || !line.starts_with("= ") || !line.ends_with(" =")) return "";
  const std::string_view title = trimmed(line.substr(2, line.size() - 4));
  return title.starts_with('=') || title.ends_with('=') ? "" : title;
}

// Length of the UTF-8 sequence at `at`; 0: none.
std::size_t sequence_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80             ? 1
                             : (lead & 0xe0) == 0xc0 ? 2
                             : (lead & 0xf0) == 0xe0 ? 3
                             : (lead & 0xf8) == 0xf0 ? 4
                                                     : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

Status check_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence_at(text, at);
    if (length == 0) return invalid("text", "UTF-8", "another byte at " + std::to_string(at));
    at += length;
  }
  return ok();
}

}  // namespace

Result<std::vector<Article>> cut_articles(std::string_view text) {
  if (text.empty()) return invalid("text", "articles", "nothing");
  if (text.back() != '\n') {
    const std::string_view last = text.substr(text.size() - std::min<std::size_t>(text.size(), 30));
    return corrupt("text", "whole lines (was it cut off?)",
                   "an end after '" + std::string(last) + "'");
  }
  MEMSLOT_TRY(check_utf8(text));
  std::vector<Article> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at) + 1;
    const std::string_view line = text.substr(at, end - at);
    if (const auto title = title_of(line); !title.empty()) out.push_back({std::string(title), ""});
    if (!out.empty()) out.back().text += line;
    at = end;
  }
  if (out.empty()) return invalid("text", "articles that begin with ' = Title = '", "none");
  return out;
}

Result<TokenText> TokenText::make(std::string text, std::vector<std::int32_t> ids,
                                  const std::vector<std::string>& pieces) {
  if (pieces.size() != ids.size()) {
    return corrupt("tokens of a text", std::to_string(ids.size()) + " pieces", pieces.size());
  }
  TokenText out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (is_space(text[at])) continue;
    const std::size_t begin = at;
    while (at < text.size() && !is_space(text[at])) ++at;
    out.words.push_back({begin, at, 0});
  }
  std::size_t begun = 0;
  bool inside = false;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    for (const char c : pieces[i]) {
      if (!is_space(c) && !inside) {
        if (begun < out.words.size()) out.words[begun].token = i;
        ++begun;
      }
      inside = !is_space(c);
    }
  }
  if (begun != out.words.size()) {
    return corrupt("tokens of a text", std::to_string(out.words.size()) + " words", begun);
  }
  out.text = std::move(text);
  out.ids = std::move(ids);
  return out;
}

std::size_t TokenText::word_at(std::size_t token) const {
  const auto found = std::lower_bound(words.begin(), words.end(), token,
                                      [](const Word& w, std::size_t t) { return w.token < t; });
  return static_cast<std::size_t>(found - words.begin());
}

}  // namespace memslot
