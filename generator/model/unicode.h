#pragma once
// UTF-8, and the alphabet in which byte-level BPE spells bytes.
//
// GPT-2's alphabet: the printable bytes 33-126, 161-172, 174-255 stand for themselves; the other
// 68, in rising order, are U+0100, U+0101, ... (so a space is U+0120).
//
// Threads: pure functions.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace memslot {

struct Utf8Char {
  enum class Kind { kWhole, kUnfinished, kInvalid };
  Kind kind = Kind::kInvalid;
  std::size_t bytes = 1;  // kInvalid: the bytes that one U+FFFD replaces (the maximal subpart)
  char32_t code = 0xFFFD;
};

// The character at `at`. No overlong forms, surrogates, nor anything above U+10FFFF.
// kUnfinished: the text ends inside a character that could still become whole.
// REQUIRES: at < text.size().
Utf8Char utf8_at(std::string_view text, std::size_t at);

// Offset of the first byte that is not part of valid UTF-8.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

// A copy in which everything invalid or unfinished is U+FFFD.
std::string to_valid_utf8(std::string_view text);

void append_utf8(char32_t code, std::string& out);

// The character that spells `byte`.
char32_t byte_symbol(std::uint8_t byte);
// The byte that `code` spells, -1 if it is not of the alphabet.
int symbol_byte(char32_t code);

}  // namespace memslot
