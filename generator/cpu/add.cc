#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/add.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class T>
void add_row(const T* x, float scale, float* y, std::size_t n) {
  const DF d;
  const auto s = hn::Set(d, scale);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto sum = hn::MulAdd(load_part(d, x + i, count), s, load_part(d, y + i, count));
    store_part(d, sum, y + i, count);
  });
}

void add_rows(const ConstMatrix& x, float scale, const Matrix& y, std::int64_t first,
              std::int64_t last) {
  const auto n = static_cast<std::size_t>(y.cols);
  for (std::int64_t r = first; r < last; ++r) {
    float* out = y.f32() + r * y.stride;
    if (x.dtype == DType::kBF16) {
      add_row(x.bf16() + r * x.stride, scale, out, n);
    } else {
      add_row(x.f32() + r * x.stride, scale, out, n);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(add_rows);
}  // namespace cpu

void CpuBackend::add(ConstMatrix x, float scale, Matrix y) {
  MEMSLOT_CHECK(x.rows == y.rows && x.cols == y.cols && y.dtype == DType::kF32);
  rows(y.rows, y.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::add_rows)(x, scale, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
