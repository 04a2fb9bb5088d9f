#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/copy.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cstring>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class In, class Out>
void copy_row(const In* x, Out* y, std::size_t n) {
  const DF d;
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    store_part(d, load_part(d, x + i, count), y + i, count);
  });
}

void copy_rows(const ConstMatrix& x, const Matrix& y, std::int64_t first, std::int64_t last) {
  const auto n = static_cast<std::size_t>(y.cols);
  for (std::int64_t r = first; r < last; ++r) {
    if (x.dtype == y.dtype) {
      const std::size_t size = dtype_size(x.dtype);
      std::memcpy(
          static_cast<std::byte*>(y.data) + static_cast<std::size_t>(r * y.stride) * size,
          static_cast<const std::byte*>(x.data) + static_cast<std::size_t>(r * x.stride) * size,
          n * size);
    } else if (y.dtype == DType::kBF16) {
      copy_row(x.f32() + r * x.stride, y.bf16() + r * y.stride, n);
    } else {
      copy_row(x.bf16() + r * x.stride, y.f32() + r * y.stride, n);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(copy_rows);
}  // namespace cpu

void CpuBackend::copy(ConstMatrix x, Matrix y) {
  MEMSLOT_CHECK(x.rows == y.rows && x.cols == y.cols);
  rows(y.rows, y.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::copy_rows)(x, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
