#include "shared/base/base64.h"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>  // memcpy

namespace memslot {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> kValues = [] {
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < kDigits.size(); ++i) {
    values[static_cast<unsigned char>(kDigits[i])] = static_cast<std::int8_t>(i);
  }
  return values;
}();

}  // namespace

std::string to_base64(std::span<const std::byte> bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < count ? std::to_integer<std::uint32_t>(bytes[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      out += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

Result<std::vector<std::byte>> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return corrupt("base64", "a multiple of 4 characters", text.size());
  std::vector<std::byte> out;
  out.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::string_view group = text.substr(i, 4);
    if (i + 4 == text.size()) {
      while (group.size() > 2 && group.back() == '=') group.remove_suffix(1);
    }
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      const int value = j < group.size() ? kValues[static_cast<unsigned char>(group[j])] : 0;
      if (value < 0) return corrupt("base64", "letters, digits, + and /", group);
      bits = bits << 6 | static_cast<std::uint32_t>(value);
    }
    const std::size_t count = group.size() - 1;
    if ((bits & (0xffffffu >> (8 * count))) != 0) {
      return corrupt("base64", "padding without bits", group);
    }
    for (std::size_t j = 0; j < count; ++j) {
      out.push_back(static_cast<std::byte>(bits >> (16 - 8 * j) & 0xff));
    }
  }
  return out;
}

std::string floats_to_base64(std::span<const float> values) {
  return to_base64(std::as_bytes(values));
}

Result<std::vector<float>> floats_from_base64(std::string_view text, std::size_t count) {
  MEMSLOT_TRY(const auto bytes, from_base64(text));
  if (bytes.size() != count * sizeof(float)) {
    return corrupt("base64 of numbers", std::to_string(count * sizeof(float)) + " bytes",
                   bytes.size());
  }
  std::vector<float> out(count);
  if (count > 0) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

}  // namespace memslot
