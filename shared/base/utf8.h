#pragma once
// Texts in UTF-8.
//
// Threads: any.
#include <cstddef>
#include <string>

namespace memslot {

// The beginning of `text`, at most `most` bytes, no character cut.
inline std::string head_of(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace memslot
