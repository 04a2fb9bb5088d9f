#pragma once
// The element types of GGUF tensors that are read here, and their dense f32 values.
//
// A row is cut into blocks of 32 columns (1 for the plain types). Of one block, little-endian:
//   F32 f32 | F16 f16 | BF16 bf16
//   Q8_0  f16 d | i8 q[32]                y_j = d q_j
//   Q4_0  f16 d | u8 n[16]                y_j = d (low4(n_j) - 8),  y_{j+16} = d (high4(n_j) - 8)
//   Q4_1  f16 d | f16 m | u8 n[16]        y_j = d low4(n_j) + m,    y_{j+16} = d high4(n_j) + m
//
// Threads: pure functions.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

enum class GgmlType : std::uint32_t {  // values are in the files
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kBF16 = 30,
};

struct GgmlTypeInfo {
  std::string_view name;
  std::size_t block_elements;
  std::size_t block_bytes;
};

GgmlTypeInfo ggml_type_info(GgmlType type);
// kNotSupported for any other number, naming it.
Result<GgmlType> parse_ggml_type(std::uint32_t type);

// REQUIRES: out.size() is a multiple of the block's elements, blocks.size() what that takes.
void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace memslot
