#include "rl/bf16_product.h"

#include <bit>
#include <cstring>  // memcpy

#include "shared/base/lanes.h"
#include "shared/base/target_clones.h"
#include "shared/tensor/dtype.h"

namespace memslot {
namespace {

// A lane takes two numbers of bf16, which come apart by a shift and a mask where widening would
// need a shuffle.
constexpr std::size_t kBlock = 2 * kLanes;
using Pairs = std::uint32_t __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));
static_assert(std::endian::native == std::endian::little, "the first of a pair is its low half");

// even += the block's even products, odd += its odd ones.
[[gnu::always_inline]] inline void add(const std::uint16_t* row, const float* query, Lanes& even,
                                       Lanes& odd) {
  Pairs pairs;
  Lanes row_lanes, query_lanes;
  std::memcpy(&pairs, row, sizeof(pairs));
  const Pairs firsts = pairs << 16, seconds = pairs & 0xffff0000u;
  std::memcpy(&row_lanes, &firsts, sizeof(firsts));
  load_lanes(query, query_lanes);
  even += row_lanes * query_lanes;
  std::memcpy(&row_lanes, &seconds, sizeof(seconds));
  load_lanes(query + kLanes, query_lanes);
  odd += row_lanes * query_lanes;
}

// Four vectors of partial sums, which do not wait for each other.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
float product(const std::uint16_t* row, const float* query, std::size_t paired, std::size_t n) {
  Lanes sums[4] = {};
  std::size_t i = 0;
  for (; i + 2 * kBlock <= paired; i += 2 * kBlock) {
    add(row + i, query + i, sums[0], sums[1]);
    add(row + i + kBlock, query + i + kBlock, sums[2], sums[3]);
  }
  if (i < paired) add(row + i, query + i, sums[0], sums[1]);
  float rest = 0;
  for (i = paired; i < n; ++i) rest += bf16_to_f32(row[i]) * query[i];
  return rest + sum_of((sums[0] + sums[2]) + (sums[1] + sums[3]));
}

}  // namespace

Bf16Product::Bf16Product(std::span<const float> query)
    : paired_(query.size() / kBlock * kBlock), query_(query.begin(), query.end()) {
  for (std::size_t i = 0; i < paired_; ++i) {
    const std::size_t at = i % kBlock;
    query_[i - at + at % 2 * kLanes + at / 2] = query[i];
  }
}

float Bf16Product::operator()(const std::uint16_t* row) const {
  return product(row, query_.data(), paired_, query_.size());
}

}  // namespace memslot
