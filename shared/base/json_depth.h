#pragma once
// Guards the JSON library's recursive functions (copy, dump): a file or a peer's message may nest
// deeper than the stack allows. Asked before every parse of text that is not our own.
//
// Threads: pure function.
#include <string_view>

namespace memslot {

inline constexpr int kMaxJsonDepth = 64;

// Whether brackets outside strings nest at most kMaxJsonDepth deep. Says nothing about validity.
inline bool json_depth_fits(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return false;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return true;
}

}  // namespace memslot
