#include <omp.h>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/packed_weight.h"

namespace memslot {
Result<std::shared_ptr<const PackedWeight>> CpuBackend::pack(ConstHostTensor weight, DType dtype,
                                                             Transpose transpose) {
  MEMSLOT_CHECK(weight.shape.rank() == 2);
  MEMSLOT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  if (dtype == DType::kBF16 && !info_.bf16) {
    return Error{ErrorCode::kNotSupported,
                 "bf16 weights: expected a processor with AVX-512 BF16, found " + info_.isa};
  }
  const std::int64_t rows = weight.shape[0], cols = weight.shape[1];
  const bool swap = transpose == Transpose::kYes;
  const std::int64_t n = swap ? cols : rows, k = swap ? rows : cols;
  // As w[K,N] the host's [N,K] is column-major; W^T is row-major.
  const dnnl::memory::dims strides =
      swap ? dnnl::memory::dims{cols, 1} : dnnl::memory::dims{1, cols};
  const dnnl::memory plain(dnnl::memory::desc({k, n}, cpu::dnnl_dtype(weight.dtype), strides),
                           matmul_.engine(), const_cast<std::byte*>(weight.data));
  return packed(plain, k, n, dtype);
}

Result<std::shared_ptr<const PackedWeight>> CpuBackend::packed(dnnl::memory plain, std::int64_t k,
                                                               std::int64_t n, DType dtype) {
  const auto layout = matmul_.pack_layout(k, n, dtype);
  MEMSLOT_TRY(auto storage, alloc(layout.get_size()));
  // Setting the handle also clears the padding of the layout, so that its bytes are defined.
  dnnl::memory packed(layout, matmul_.engine(), storage.data());
  dnnl::stream stream(matmul_.engine());  // of our own: another thread may be computing
  omp_set_num_threads(info_.threads);
  dnnl::reorder(plain, packed).execute(stream, plain, packed);
  stream.wait();
  return std::shared_ptr<const PackedWeight>(std::make_shared<cpu::CpuPackedWeight>(
      std::move(storage), matmul_.engine(), std::move(packed), k, n, dtype));
}

}  // namespace memslot
