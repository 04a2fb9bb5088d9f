#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/rms_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class T>
void rms_norm_row(const float* x, const float* weight, float eps, T* y, std::size_t n) {
  const DF d;
  const float sum = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const auto v = load_part(d, x + i, count);
    return hn::Mul(v, v);
  });
  const auto scale = hn::Set(d, 1.0f / std::sqrt(sum / static_cast<float>(n) + eps));
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto v = hn::Mul(load_part(d, x + i, count), scale);
    store_part(d, hn::Mul(v, load_part(d, weight + i, count)), y + i, count);
  });
}

void rms_norm_rows(const ConstMatrix& x, const float* weight, float eps, const Matrix& y,
                   std::int64_t first, std::int64_t last) {
  const auto n = static_cast<std::size_t>(x.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = x.f32() + r * x.stride;
    if (y.dtype == DType::kBF16) {
      rms_norm_row(in, weight, eps, y.bf16() + r * y.stride, n);
    } else {
      rms_norm_row(in, weight, eps, y.f32() + r * y.stride, n);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(rms_norm_rows);
}  // namespace cpu

void CpuBackend::rms_norm(ConstMatrix x, const float* weight, float eps, Matrix y) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && x.rows == y.rows && x.cols == y.cols);
  rows(x.rows, x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::rms_norm_rows)(x, weight, eps, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
