#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/softmax_xent_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>
#include <vector>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/row_loss-inl.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// What a thread keeps of a row between its two passes, where the result has no room for it.
template <class Out>
HWY_INLINE float* exponentials_of(Out* out, std::size_t n) {
  if constexpr (sizeof(Out) == sizeof(float)) {
    return out;
  } else {
    static thread_local std::vector<float> kept;
    kept.resize(std::max(kept.size(), n));
    return kept.data();
  }
}

// out = scale (softmax(x) - onehot(target)); the row's nll. out may be x.
template <class Out>
float xent_row(const float* x, std::int32_t target, float scale, float highest, Out* out,
               std::size_t n) {
  const DF d;
  if (target < 0) {
    for_vectors(
        n, [&](std::size_t i, std::size_t count) { store_part(d, hn::Zero(d), out + i, count); });
    return 0;
  }
  const float z_target = x[target] - highest;
  float* kept = exponentials_of(out, n);
  const float sum =
      exponential_sum(x, n, highest, [&](std::size_t i, std::size_t count, VF, VF e, std::size_t) {
        store_part(d, e, kept + i, count);
      });
  const VF factor = hn::Set(d, scale / sum);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    store_part(d, hn::Mul(load_part(d, kept + i, count), factor), out + i, count);
  });
  // The target's entry apart, so that scale * (p - 1) is rounded once.
  const float at_target = scale * (std::exp(z_target) / sum - 1.0f);
  if constexpr (sizeof(Out) == sizeof(float)) {
    out[target] = at_target;
  } else {
    out[target] = f32_to_bf16(at_target);
  }
  return std::log(sum) - z_target;
}

void xent_rows(const ConstMatrix& logits, const std::int32_t* targets, const float* scale,
               const Matrix& out, float* nll, std::int32_t* argmax, std::int64_t first,
               std::int64_t last) {
  const auto n = static_cast<std::size_t>(logits.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = logits.f32() + r * logits.stride;
    const float highest = row_max(in, n);
    if (argmax != nullptr) argmax[r] = static_cast<std::int32_t>(first_place(in, n, highest));
    const float loss =
        out.dtype == DType::kF32
            ? xent_row(in, targets[r], scale[r], highest, out.f32() + r * out.stride, n)
            : xent_row(in, targets[r], scale[r], highest, out.bf16() + r * out.stride, n);
    if (nll != nullptr) nll[r] = loss;
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
                                       std::span<const float> scale, Matrix dlogits, float* nll,
                                       std::int32_t* argmax) {
  MEMSLOT_CHECK(logits.dtype == DType::kF32 && logits.cols > 0);
  MEMSLOT_CHECK(logits.rows == dlogits.rows && logits.cols == dlogits.cols);
  MEMSLOT_CHECK(std::ssize(targets) == logits.rows && std::ssize(scale) == logits.rows);
  for (const std::int32_t target : targets) MEMSLOT_CHECK(target < logits.cols);
  rows(logits.rows, 16 * logits.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::xent_rows)
    (logits, targets.data(), scale.data(), dlogits, nll, argmax, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
