#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/softmax_xent_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

HWY_INLINE float row_max(const float* x, std::size_t n) {
  const DF d;
  VF best = hn::Set(d, x[0]);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const VF v = hn::IfThenElse(hn::FirstN(d, count), load_part(d, x + i, count), best);
    best = hn::Max(best, v);
  });
  return max_lanes(d, best);
}

template <class Out>
void xent_row(const float* x, std::int32_t target, float scale, Out* out, std::size_t n) {
  const DF d;
  if (target < 0) {
    for_vectors(
        n, [&](std::size_t i, std::size_t count) { store_part(d, hn::Zero(d), out + i, count); });
    return;
  }
  const VF top = hn::Set(d, row_max(x, n));
  const float sum = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const VF e = hn::Exp(d, hn::Sub(load_part(d, x + i, count), top));
    return hn::IfThenElseZero(hn::FirstN(d, count), e);
  });
  // The target's entry apart, so that scale * (p - 1) is rounded once.
  const float at_target = std::exp(x[target] - hn::GetLane(top)) / sum - 1.0f;
  const VF factor = hn::Set(d, scale / sum);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const VF e = hn::Exp(d, hn::Sub(load_part(d, x + i, count), top));
    store_part(d, hn::Mul(e, factor), out + i, count);
  });
  const float value = scale * at_target;
  if constexpr (sizeof(Out) == sizeof(float)) {
    out[target] = value;
  } else {
    out[target] = f32_to_bf16(value);
  }
}

void xent_rows(const ConstMatrix& logits, const std::int32_t* targets, const float* scale,
               const Matrix& out, std::int64_t first, std::int64_t last) {
  const auto n = static_cast<std::size_t>(logits.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = logits.f32() + r * logits.stride;
    if (out.dtype == DType::kF32) {
      xent_row(in, targets[r], scale[r], out.f32() + r * out.stride, n);
    } else {
      xent_row(in, targets[r], scale[r], out.bf16() + r * out.stride, n);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(xent_rows);
}  // namespace cpu

void CpuBackend::softmax_xent_backward(ConstMatrix logits, std::span<const std::int32_t> targets,
                                       std::span<const float> scale, Matrix dlogits) {
  MEMSLOT_CHECK(logits.dtype == DType::kF32 && logits.cols > 0);
  MEMSLOT_CHECK(logits.rows == dlogits.rows && logits.cols == dlogits.cols);
  MEMSLOT_CHECK(std::ssize(targets) == logits.rows && std::ssize(scale) == logits.rows);
  for (const std::int32_t target : targets) MEMSLOT_CHECK(target < logits.cols);
  rows(logits.rows, 16 * logits.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::xent_rows)
    (logits, targets.data(), scale.data(), dlogits, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
