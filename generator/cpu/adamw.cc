#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/adamw.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// step_size = lr / (1 - beta1^t); root = 1 / sqrt(1 - beta2^t); decay = 1 - lr * weight_decay.

void adamw_part(float* weight, const float* gradient, float* m, float* v, std::size_t n,
                const AdamWStep& step, float step_size, float root, float decay) {
  const DF d;
  const VF beta1 = hn::Set(d, step.beta1), beta2 = hn::Set(d, step.beta2);
  const VF rest1 = hn::Set(d, 1.0f - step.beta1), rest2 = hn::Set(d, 1.0f - step.beta2);
  const VF eps = hn::Set(d, step.eps);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const VF g = load_part(d, gradient + i, count);
    const VF m1 = hn::Add(hn::Mul(beta1, load_part(d, m + i, count)), hn::Mul(rest1, g));
    const VF v1 =
        hn::Add(hn::Mul(beta2, load_part(d, v + i, count)), hn::Mul(rest2, hn::Mul(g, g)));
    const VF w = hn::Mul(load_part(d, weight + i, count), hn::Set(d, decay));
    const VF denominator = hn::Add(hn::Mul(hn::Sqrt(v1), hn::Set(d, root)), eps);
    store_part(d, m1, m + i, count);
    store_part(d, v1, v + i, count);
    store_part(d, hn::Sub(w, hn::Div(hn::Mul(hn::Set(d, step_size), m1), denominator)), weight + i,
               count);
  });
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(adamw_part);
}  // namespace cpu

void CpuBackend::adamw(float* weight, const float* gradient, float* m, float* v, std::int64_t n,
                       const AdamWStep& step) {
  MEMSLOT_CHECK(n >= 0 && step.step >= 1);
  const double t = step.step;
  const auto step_size = static_cast<float>(step.lr / (1.0 - std::pow(double{step.beta1}, t)));
  const auto root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(double{step.beta2}, t)));
  const float decay = 1.0f - step.lr * step.weight_decay;
  rows(n, 4, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::adamw_part)
    (weight + first, gradient + first, m + first, v + first, static_cast<std::size_t>(last - first),
     step, step_size, root, decay);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
