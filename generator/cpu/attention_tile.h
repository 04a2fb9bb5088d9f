#pragma once
// What one task of attention works on: some rows of the heads that share a key/value head.
#include <cstddef>
#include <cstdint>

#include "generator/backend/backend.h"

namespace memslot::cpu {

struct AttentionTile {
  std::size_t rows = 0;   // query rows
  std::size_t group = 0;  // heads that share the keys; virtual row r = row * group + head
  std::size_t head_dim = 0;
  std::size_t position = 0;  // of the first row
  float scale = 0;
  const float* query = nullptr;  // of the group's first head
  std::size_t query_stride = 0;
  const void* keys = nullptr;  // [positions, head_dim]
  const void* values = nullptr;
  DType kv_dtype = DType::kF32;
  bool native_bf16 = false;  // the processor multiplies bf16 pairs
  void* out = nullptr;
  DType out_dtype = DType::kF32;
  std::size_t out_stride = 0;
};

// A thread's working memory for one tile; borrowed from TileMemory.
struct TileScratch {
  std::size_t key_words = 0;  // u32 words of one query or key
  std::size_t width = 0;      // head_dim, padded to whole vectors
  std::uint32_t *query = nullptr, *keys = nullptr, *values = nullptr, *weights = nullptr;
  float *scores = nullptr, *out = nullptr, *alpha = nullptr, *highest = nullptr, *sum = nullptr;
};

}  // namespace memslot::cpu
