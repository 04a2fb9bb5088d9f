#include "shared/tensor/dtype.h"

#include <cmath>

namespace memslot {

std::size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16: return 2;
    case DType::kI64: return 8;
  }
  return 0;
}

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF16: return "f16";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
  }
  return "unknown";
}

Result<DType> parse_dtype(std::string_view name) {
  for (const auto dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return invalid("dtype", "f32, bf16, f16, i32 or i64", name);
}

float f16_to_f32(std::uint16_t v) {
  const std::uint32_t sign = static_cast<std::uint32_t>(v & 0x8000U) << 16;
  const std::uint32_t exponent = (v >> 10) & 0x1fU, mantissa = v & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | mantissa << 13);
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

void convert(std::span<const float> from, std::span<std::uint16_t> to_bf16) {
  MEMSLOT_CHECK(from.size() == to_bf16.size());
  for (std::size_t i = 0; i < from.size(); ++i) to_bf16[i] = f32_to_bf16(from[i]);
}

void convert(std::span<const std::uint16_t> from_bf16, std::span<float> to) {
  MEMSLOT_CHECK(from_bf16.size() == to.size());
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = bf16_to_f32(from_bf16[i]);
}

}  // namespace memslot
