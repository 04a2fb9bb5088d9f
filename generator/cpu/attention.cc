#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "generator/cpu/attention-inl.h"

#if HWY_ONCE
#include "generator/cpu/cpu_backend.h"
#include "hwy/aligned_allocator.h"

namespace memslot {
namespace cpu {
namespace {

HWY_EXPORT(attend);

constexpr std::size_t kTileRows =
    96;  // virtual rows: scores, weights and sums stay in the L2 cache

// A thread's working memory, grown to the largest tile it has seen.
class TileMemory {
 public:
  TileScratch view(const AttentionTile& tile) {
    constexpr std::size_t kKeys = static_cast<std::size_t>(kernels::kAttentionBlock);
    constexpr std::size_t kLine = 16;  // words of a cache line, and lanes of the widest vector
    const auto padded = [](std::size_t n) { return (n + kLine - 1) / kLine * kLine; };
    const std::size_t rows = padded(tile.rows * tile.group), width = padded(tile.head_dim);
    const std::size_t pair = tile.kv_dtype == DType::kF32 ? 1 : 2;
    const std::size_t words = tile.head_dim / pair;
    const std::size_t sizes[] = {rows * words,
                                 words * kKeys,
                                 kKeys * width / pair,
                                 rows * kKeys / pair,
                                 rows * kKeys,
                                 rows * width,
                                 rows,
                                 rows,
                                 rows};
    std::size_t total = 0;
    for (const auto size : sizes) total += padded(size);
    if (total > size_) {
      words_ = hwy::AllocateAligned<std::uint32_t>(total);
      size_ = total;
    }
    std::uint32_t* next = words_.get();
    std::size_t part = 0;
    const auto take = [&] { return std::exchange(next, next + padded(sizes[part++])); };
    // The same storage holds words and floats, each part always as one of the two.
    const auto take_floats = [&] { return reinterpret_cast<float*>(take()); };
    TileScratch scratch{.key_words = words, .width = width};
    scratch.query = take(), scratch.keys = take(), scratch.values = take(),
    scratch.weights = take();
    scratch.scores = take_floats(), scratch.out = take_floats(), scratch.alpha = take_floats();
    scratch.highest = take_floats(), scratch.sum = take_floats();
    return scratch;
  }

 private:
  hwy::AlignedFreeUniquePtr<std::uint32_t[]> words_;
  std::size_t size_ = 0;
};

// One span's tiles: `tiles` of `rows` rows for each key/value head.
struct SpanTiles {
  std::int64_t first_task = 0, tiles = 0, rows = 0;
};

AttentionTile make_tile(ConstMatrix qkv, const AttentionShape& shape, const AttentionSpan& span,
                        const SpanTiles& cut, std::int64_t task, Matrix y) {
  const std::int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
  // Late tiles see most positions: first, so that threads end together.
  const std::int64_t tile = cut.tiles - 1 - task / shape.kv_heads, g = task % shape.kv_heads;
  const std::int64_t offset = tile * cut.rows, row = span.row + offset;
  const auto kv_offset =
      static_cast<std::size_t>(g * span.kv.capacity * d) * dtype_size(span.kv.dtype);
  const auto y_offset =
      static_cast<std::size_t>(row * y.stride + g * group * d) * dtype_size(y.dtype);
  AttentionTile out;
  out.rows = static_cast<std::size_t>(std::min(cut.rows, span.count - offset));
  out.group = static_cast<std::size_t>(group);
  out.head_dim = static_cast<std::size_t>(d);
  out.position = static_cast<std::size_t>(span.position + offset);
  out.scale = 1.0f / std::sqrt(static_cast<float>(d));
  out.query = qkv.f32() + row * qkv.stride + g * group * d;
  out.query_stride = static_cast<std::size_t>(qkv.stride);
  out.keys = static_cast<const std::byte*>(span.kv.keys) + kv_offset;
  out.values = static_cast<const std::byte*>(span.kv.values) + kv_offset;
  out.kv_dtype = span.kv.dtype;
  out.out = static_cast<std::byte*>(y.data) + y_offset;
  out.out_dtype = y.dtype;
  out.out_stride = static_cast<std::size_t>(y.stride);
  return out;
}

}  // namespace
}  // namespace cpu

void CpuBackend::attention(ConstMatrix qkv, const AttentionShape& shape,
                           std::span<const AttentionSpan> spans, Matrix y) {
  MEMSLOT_CHECK(qkv.dtype == DType::kF32 && y.cols == shape.heads * shape.head_dim);
  MEMSLOT_CHECK(shape.heads % shape.kv_heads == 0 && shape.head_dim % 2 == 0);
  const std::int64_t group = shape.heads / shape.kv_heads;
  std::vector<cpu::SpanTiles> cuts;
  std::int64_t tasks = 0, work = 0;
  for (const auto& span : spans) {
    MEMSLOT_CHECK(span.position + span.count <= span.kv.capacity);
    const std::int64_t rows_per_tile =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(cpu::kTileRows) / group);
    const std::int64_t tiles = (span.count + rows_per_tile - 1) / rows_per_tile;
    cuts.push_back({tasks, tiles, rows_per_tile});
    tasks += tiles * shape.kv_heads;
    work += tiles * shape.kv_heads * (span.position + span.count) * shape.head_dim;
  }
  const int threads = work < 8192 ? 1 : info_.threads;
  cpu::parallel_tasks(threads, tasks, [&](std::int64_t task) {
    const auto after =
        std::upper_bound(cuts.begin(), cuts.end(), task,
                         [](std::int64_t t, const auto& cut) { return t < cut.first_task; });
    const auto which = static_cast<std::size_t>(after - cuts.begin()) - 1;
    auto tile =
        cpu::make_tile(qkv, shape, spans[which], cuts[which], task - cuts[which].first_task, y);
    tile.native_bf16 = info_.bf16;
    thread_local cpu::TileMemory memory;
    auto scratch = memory.view(tile);
    HWY_DYNAMIC_DISPATCH(cpu::attend)(tile, scratch);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
