#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/silu_mul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

HWY_INLINE VF silu(DF d, VF x) {
  // exp(88) is finite and already makes the quotient vanish.
  const auto e = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), e));
}

template <class In, class Out>
void silu_mul_row(const In* gate, const In* up, Out* y, std::size_t n) {
  const DF d;
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto g = silu(d, load_part(d, gate + i, count));
    store_part(d, hn::Mul(g, load_part(d, up + i, count)), y + i, count);
  });
}

template <class In>
void silu_mul_rows_of(const In* gate_up, std::int64_t stride, const Matrix& y, std::int64_t first,
                      std::int64_t last) {
  const auto n = static_cast<std::size_t>(y.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const In* gate = gate_up + r * stride;
    if (y.dtype == DType::kBF16) {
      silu_mul_row(gate, gate + n, y.bf16() + r * y.stride, n);
    } else {
      silu_mul_row(gate, gate + n, y.f32() + r * y.stride, n);
    }
  }
}

void silu_mul_rows(const ConstMatrix& gate_up, const Matrix& y, std::int64_t first,
                   std::int64_t last) {
  if (gate_up.dtype == DType::kBF16) {
    silu_mul_rows_of(gate_up.bf16(), gate_up.stride, y, first, last);
  } else {
    silu_mul_rows_of(gate_up.f32(), gate_up.stride, y, first, last);
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(silu_mul_rows);
}  // namespace cpu

void CpuBackend::silu_mul(ConstMatrix gate_up, Matrix y) {
  MEMSLOT_CHECK(gate_up.rows == y.rows && gate_up.cols == 2 * y.cols);
  rows(y.rows, 4 * y.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::silu_mul_rows)(gate_up, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
