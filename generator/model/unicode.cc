#include "generator/model/unicode.h"

namespace memslot {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<char32_t, 256> make_symbols() {
  std::array<char32_t, 256> symbols{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b)
    symbols[b] = stands_for_itself(b) ? static_cast<char32_t>(b) : next++;
  return symbols;
}
constexpr auto kSymbols = make_symbols();
static_assert(kSymbols[' '] == 0x120 && kSymbols['\n'] == 0x10A && kSymbols[173] == 0x143);

struct Lead {
  std::size_t bytes;   // 0: not a lead byte
  unsigned low, high;  // bounds of the second byte (Unicode 15, table 3-7)
};

constexpr Lead lead_of(unsigned b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char utf8_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned>(static_cast<unsigned char>(text[at + i]));
  };
  const Lead lead = lead_of(byte(0));
  if (lead.bytes == 0) return {};
  if (lead.bytes == 1) return {Utf8Char::Kind::kWhole, 1, static_cast<char32_t>(byte(0))};
  char32_t code = byte(0) & (0x7FU >> lead.bytes);
  for (std::size_t i = 1; i < lead.bytes; ++i) {
    if (at + i == text.size()) return {Utf8Char::Kind::kUnfinished, i};
    const unsigned low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Utf8Char::Kind::kInvalid, i};
    code = code << 6 | (byte(i) & 0x3FU);
  }
  return {Utf8Char::Kind::kWhole, lead.bytes, code};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto c = utf8_at(text, at);
    if (c.kind != Utf8Char::Kind::kWhole) return at;
    at += c.bytes;
  }
  return std::nullopt;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto c = utf8_at(text, at);
    out += c.kind == Utf8Char::Kind::kWhole ? text.substr(at, c.bytes) : kReplacement;
    at += c.bytes;
  }
  return out;
}

void append_utf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) {
    out.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
  };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

char32_t byte_symbol(std::uint8_t byte) { return kSymbols[byte]; }

int symbol_byte(char32_t code) {
  if (code < 256)
    return stands_for_itself(static_cast<unsigned>(code)) ? static_cast<int>(code) : -1;
  if (code >= 0x144) return -1;
  for (unsigned b = 0; b < 256; ++b) {  // 68 symbols, looked up only when a tokenizer is made
    if (kSymbols[b] == code) return static_cast<int>(b);
  }
  return -1;
}

}  // namespace memslot
