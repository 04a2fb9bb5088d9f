#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/layer_norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class T>
void layer_norm_row(const float* x, const float* weight, const float* bias, float eps, T* y,
                    std::size_t n) {
  const DF d;
  const auto size = static_cast<float>(n);
  const float total =
      sum_terms(n, [&](std::size_t i, std::size_t count) { return load_part(d, x + i, count); });
  const auto mean = hn::Set(d, total / size);
  const float squares = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const auto v = hn::Sub(load_part(d, x + i, count), mean);
    return hn::IfThenElseZero(hn::FirstN(d, count), hn::Mul(v, v));
  });
  const auto scale = hn::Set(d, 1.0f / std::sqrt(squares / size + eps));
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto v = hn::Mul(hn::Sub(load_part(d, x + i, count), mean), scale);
    const auto w = load_part(d, weight + i, count);
    store_part(d, hn::MulAdd(v, w, load_part(d, bias + i, count)), y + i, count);
  });
}

void layer_norm_rows(const ConstMatrix& x, const float* weight, const float* bias, float eps,
                     const Matrix& y, std::int64_t first, std::int64_t last) {
  const auto n = static_cast<std::size_t>(x.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = x.f32() + r * x.stride;
    if (y.dtype == DType::kBF16) {
      layer_norm_row(in, weight, bias, eps, y.bf16() + r * y.stride, n);
    } else {
      layer_norm_row(in, weight, bias, eps, y.f32() + r * y.stride, n);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(layer_norm_rows);
}  // namespace cpu

void CpuBackend::layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                            Matrix y) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && x.rows == y.rows && x.cols == y.cols);
  rows(x.rows, 2 * x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::layer_norm_rows)(x, weight, bias, eps, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
