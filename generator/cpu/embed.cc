#include <vector>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/packed_weight.h"

namespace memslot {
namespace {

// Where index `i` of dimension `dim` (0 = K, 1 = N) lies in a blocked layout: the offset of element
// (k, n) is the sum of its two parts, since strides and inner blocks each belong to one dimension.
std::int64_t blocked_offset(const dnnl_memory_desc_t& layout, int dim, std::int64_t i) {
  const auto& blocking = layout.format_desc.blocking;
  std::int64_t offset = 0, inner_stride = 1;
  for (int b = blocking.inner_nblks - 1; b >= 0; --b) {
    if (blocking.inner_idxs[b] == dim) {
      offset += i % blocking.inner_blks[b] * inner_stride;
      i /= blocking.inner_blks[b];
    }
    inner_stride *= blocking.inner_blks[b];
  }
  return offset + i * blocking.strides[dim];
}

}  // namespace

void CpuBackend::embed(const PackedWeight& table, std::span<const std::int32_t> ids, Matrix y) {
  MEMSLOT_CHECK(std::ssize(ids) == y.rows && table.inputs() == y.cols && y.dtype == DType::kF32);
  const auto& layout = static_cast<const cpu::CpuPackedWeight&>(table).memory().get_desc().data;
  MEMSLOT_CHECK(layout.format_kind == dnnl_blocked);
  std::vector<std::int64_t> column(static_cast<std::size_t>(y.cols));
  for (std::int64_t k = 0; k < y.cols; ++k) {
    column[static_cast<std::size_t>(k)] = blocked_offset(layout, 0, k);
  }
  rows(y.rows, 4 * y.cols, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      const std::int32_t id = ids[static_cast<std::size_t>(r)];
      MEMSLOT_CHECK(id >= 0 && id < table.outputs());
      const std::int64_t base = blocked_offset(layout, 1, id) + layout.offset0;
      float* out = y.f32() + r * y.stride;
      for (std::size_t k = 0; k < column.size(); ++k) {
        out[k] =
            table.dtype() == DType::kF32
                ? static_cast<const float*>(table.data())[base + column[k]]
                : bf16_to_f32(static_cast<const std::uint16_t*>(table.data())[base + column[k]]);
      }
    }
  });
}

}  // namespace memslot
