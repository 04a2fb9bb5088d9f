#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/gelu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "generator/kernels/activations.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class In, class Out>
void gelu_row(const In* x, Out* y, std::size_t n) {
  const DF d;
  const auto half = hn::Set(d, 0.5f), one = hn::Set(d, 1.0f);
  const auto scale = hn::Set(d, kernels::kGeluScale), cubic = hn::Set(d, kernels::kGeluCubic);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto v = load_part(d, x + i, count);
    const auto u = hn::Mul(scale, hn::MulAdd(hn::Mul(hn::Mul(v, v), v), cubic, v));
    const auto t = hn::Tanh(d, u);
    store_part(d, hn::Mul(hn::Mul(half, v), hn::Add(one, t)), y + i, count);
  });
}

template <class In>
void gelu_rows_of(const In* x, std::int64_t stride, const Matrix& y, std::int64_t first,
                  std::int64_t last) {
  const auto n = static_cast<std::size_t>(y.cols);
  for (std::int64_t r = first; r < last; ++r) {
    if (y.dtype == DType::kBF16) {
      gelu_row(x + r * stride, y.bf16() + r * y.stride, n);
    } else {
      gelu_row(x + r * stride, y.f32() + r * y.stride, n);
    }
  }
}

void gelu_rows(const ConstMatrix& x, const Matrix& y, std::int64_t first, std::int64_t last) {
  if (x.dtype == DType::kBF16) {
    gelu_rows_of(x.bf16(), x.stride, y, first, last);
  } else {
    gelu_rows_of(x.f32(), x.stride, y, first, last);
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(gelu_rows);
}  // namespace cpu

void CpuBackend::gelu(ConstMatrix x, Matrix y) {
  MEMSLOT_CHECK(x.rows == y.rows && x.cols == y.cols);
  rows(y.rows, 4 * y.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::gelu_rows)(x, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
