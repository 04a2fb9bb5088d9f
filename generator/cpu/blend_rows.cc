#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/blend_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

void blend_row_range(const Matrix& y, const float* a, const ConstMatrix& x, const float* b,
                     std::int64_t first, std::int64_t last) {
  const DF d;
  const auto n = static_cast<std::size_t>(y.cols);
  for (std::int64_t r = first; r < last; ++r) {
    float* out = y.f32() + r * y.stride;
    const VF keep = hn::Set(d, a[r]);
    if (x.rows == 0) {
      if (a[r] == 1.0f) continue;
      for_vectors(n, [&](std::size_t i, std::size_t count) {
        store_part(d, hn::Mul(keep, load_part(d, out + i, count)), out + i, count);
      });
      continue;
    }
    const float* in = x.f32() + r * x.stride;
    const VF add = hn::Set(d, b[r]);
    for_vectors(n, [&](std::size_t i, std::size_t count) {
      const VF kept = hn::Mul(keep, load_part(d, out + i, count));
      store_part(d, hn::MulAdd(add, load_part(d, in + i, count), kept), out + i, count);
    });
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(blend_row_range);
}  // namespace cpu

void CpuBackend::blend_rows(Matrix y, std::span<const float> a, ConstMatrix x,
                            std::span<const float> b) {
  MEMSLOT_CHECK(y.dtype == DType::kF32 && std::ssize(a) == y.rows);
  MEMSLOT_CHECK(x.rows == 0 || (x.dtype == DType::kF32 && x.rows == y.rows && x.cols == y.cols &&
                                std::ssize(b) == y.rows));
  rows(y.rows, y.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::blend_row_range)(y, a.data(), x, b.data(), first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
