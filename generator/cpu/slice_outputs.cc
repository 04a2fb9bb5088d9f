#include <omp.h>

#include <algorithm>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/packed_weight.h"

namespace memslot {
namespace {

// Whether a map in layout `whole`, cut at `part`, is byte for byte one in layout `own`. Padding
// stands against it: a memory object clears what it takes for its padding.
bool lies_alike(const dnnl_memory_desc_t& part, const dnnl_memory_desc_t& own) {
  if (part.format_kind != dnnl_blocked || own.format_kind != dnnl_blocked) return false;
  const auto &a = part.format_desc.blocking, &b = own.format_desc.blocking;
  return std::equal(own.dims, own.dims + 2, own.padded_dims) &&
         std::equal(a.strides, a.strides + 2, b.strides) && a.inner_nblks == b.inner_nblks &&
         std::equal(a.inner_blks, a.inner_blks + a.inner_nblks, b.inner_blks) &&
         std::equal(a.inner_idxs, a.inner_idxs + a.inner_nblks, b.inner_idxs);
}

}  // namespace

// In the layouts that oneDNN packs into, blocks of outputs are outermost: a slice is then a smaller
// map's bytes, from some place on. Elsewhere it is unpacked and packed again.
Result<std::shared_ptr<const PackedWeight>> CpuBackend::slice_outputs(const PackedWeight& w,
                                                                      std::int64_t first,
                                                                      std::int64_t count) {
  MEMSLOT_CHECK(first >= 0 && count > 0 && first + count <= w.outputs());
  const auto& whole = static_cast<const cpu::CpuPackedWeight&>(w);
  const std::int64_t k = w.inputs(), n = w.outputs();
  const auto layout = matmul_.pack_layout(k, count, w.dtype());
  const auto part = whole.memory().get_desc().submemory_desc({k, count}, {0, first},
                                                             /*allow_empty=*/true);
  if (!part.is_zero() && lies_alike(part.data, layout.data)) {
    const auto offset = static_cast<std::size_t>(part.data.offset0) * dtype_size(w.dtype());
    auto* at = static_cast<std::byte*>(whole.memory().get_data_handle()) + offset;
    return std::shared_ptr<const PackedWeight>(std::make_shared<cpu::CpuPackedWeight>(
        Buffer{}, matmul_.engine(), dnnl::memory(layout, matmul_.engine(), at), k, count,
        w.dtype()));
  }
  const auto type = cpu::dnnl_dtype(w.dtype());
  MEMSLOT_TRY(const auto rows, alloc(static_cast<std::size_t>(k * n) * dtype_size(w.dtype())));
  dnnl::memory plain({{k, n}, type, dnnl::memory::dims{n, 1}}, matmul_.engine(), rows.data());
  dnnl::memory from = whole.memory();
  dnnl::stream stream(matmul_.engine());
  omp_set_num_threads(info_.threads);
  dnnl::reorder(from, plain).execute(stream, from, plain);
  stream.wait();
  auto* column = static_cast<std::byte*>(rows.data()) +
                 static_cast<std::size_t>(first) * dtype_size(w.dtype());
  return packed({{{k, count}, type, dnnl::memory::dims{n, 1}}, matmul_.engine(), column}, k, count,
                w.dtype());
}

}  // namespace memslot
