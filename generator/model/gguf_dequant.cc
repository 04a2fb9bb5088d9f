#include "generator/model/gguf_dequant.h"

#include <cstring>
#include <string>

#include "shared/tensor/dtype.h"

namespace memslot {
namespace {

constexpr std::size_t kBlock = 32;

std::uint16_t load16(const std::byte* at) {
  std::uint16_t v = 0;
  std::memcpy(&v, at, 2);
  return v;
}

void dequantise_q8_0(const std::byte* block, float* out) {
  const float d = f16_to_f32(load16(block));
  for (std::size_t j = 0; j < kBlock; ++j) {
    out[j] = d * static_cast<float>(std::to_integer<std::int8_t>(block[2 + j]));
  }
}

void dequantise_q4_0(const std::byte* block, float* out) {
  const float d = f16_to_f32(load16(block));
  for (std::size_t j = 0; j < kBlock / 2; ++j) {
    const int n = std::to_integer<int>(block[2 + j]);
    out[j] = d * static_cast<float>((n & 15) - 8);
    out[j + kBlock / 2] = d * static_cast<float>((n >> 4) - 8);
  }
}

void dequantise_q4_1(const std::byte* block, float* out) {
  const float d = f16_to_f32(load16(block)), m = f16_to_f32(load16(block + 2));
  for (std::size_t j = 0; j < kBlock / 2; ++j) {
    const int n = std::to_integer<int>(block[4 + j]);
    out[j] = d * static_cast<float>(n & 15) + m;
    out[j + kBlock / 2] = d * static_cast<float>(n >> 4) + m;
  }
}

template <class F>
void each_block(std::span<const std::byte> blocks, std::size_t bytes, std::span<float> out, F one) {
  for (std::size_t i = 0; i < out.size() / kBlock; ++i)
    one(blocks.data() + i * bytes, out.data() + i * kBlock);
}

}  // namespace

GgmlTypeInfo ggml_type_info(GgmlType type) {
  switch (type) {
    case GgmlType::kF32: return {"F32", 1, 4};
    case GgmlType::kF16: return {"F16", 1, 2};
    case GgmlType::kBF16: return {"BF16", 1, 2};
    case GgmlType::kQ8_0: return {"Q8_0", kBlock, 34};
    case GgmlType::kQ4_0: return {"Q4_0", kBlock, 18};
    case GgmlType::kQ4_1: return {"Q4_1", kBlock, 20};
  }
  return {"unknown", 1, 1};
}

Result<GgmlType> parse_ggml_type(std::uint32_t type) {
  for (const auto known : {GgmlType::kF32, GgmlType::kF16, GgmlType::kQ4_0, GgmlType::kQ4_1,
                           GgmlType::kQ8_0, GgmlType::kBF16}) {
    if (static_cast<std::uint32_t>(known) == type) return known;
  }
  return Error{ErrorCode::kNotSupported,
               "quantisation: expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1, found ggml type " +
                   std::to_string(type)};
}

void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  const auto info = ggml_type_info(type);
  MEMSLOT_CHECK(out.size() % info.block_elements == 0);
  MEMSLOT_CHECK(blocks.size() == out.size() / info.block_elements * info.block_bytes);
  switch (type) {
    case GgmlType::kF32:
      if (!out.empty()) std::memcpy(out.data(), blocks.data(), blocks.size());
      return;
    case GgmlType::kF16:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = f16_to_f32(load16(blocks.data() + 2 * i));
      return;
    case GgmlType::kBF16:
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = bf16_to_f32(load16(blocks.data() + 2 * i));
      return;
    case GgmlType::kQ8_0: return each_block(blocks, info.block_bytes, out, dequantise_q8_0);
    case GgmlType::kQ4_0: return each_block(blocks, info.block_bytes, out, dequantise_q4_0);
    case GgmlType::kQ4_1: return each_block(blocks, info.block_bytes, out, dequantise_q4_1);
  }
}

}  // namespace memslot
