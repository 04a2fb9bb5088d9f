#pragma once
// Element types and their conversions.
//
// bf16 is the upper half of an IEEE f32; f32 -> bf16 rounds to nearest even, NaN stays NaN.
// Threads: pure functions.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

enum class DType : std::uint8_t {  // values are on disk and on the wire; append only
  kF32 = 1,
  kBF16 = 2,
  kF16 = 3,
  kI32 = 4,
  kI64 = 5,
};

std::size_t dtype_size(DType dtype);       // bytes per element
std::string_view dtype_name(DType dtype);  // "f32", "bf16", ...
Result<DType> parse_dtype(std::string_view name);

inline float bf16_to_f32(std::uint16_t v) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(v) << 16);
}
inline std::uint16_t f32_to_bf16(float f) {
  const auto u = std::bit_cast<std::uint32_t>(f);
  if ((u & 0x7fffffffU) > 0x7f800000U)
    return static_cast<std::uint16_t>((u >> 16) | 0x40);  // quiet NaN
  return static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}
float f16_to_f32(std::uint16_t v);

// Element-wise conversion. REQUIRES: equal sizes.
void convert(std::span<const float> from, std::span<std::uint16_t> to_bf16);
void convert(std::span<const std::uint16_t> from_bf16, std::span<float> to);

}  // namespace memslot
