// The parts of a row of logits' loss, forward and backward: highest logit and sum of exponentials,
// in one fixed order. Include inside foreach_target files, after simd-inl.h.
#if defined(MEMSLOT_CPU_ROW_LOSS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_ROW_LOSS_INL_H_
#undef MEMSLOT_CPU_ROW_LOSS_INL_H_
#else
#define MEMSLOT_CPU_ROW_LOSS_INL_H_
#endif

#include <algorithm>

#include "generator/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

HWY_INLINE float row_max(const float* x, std::size_t n) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  VF best[4];
  for (VF& v : best) v = hn::Set(d, x[0]);
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    for (std::size_t j = 0; j < 4; ++j) best[j] = hn::Max(best[j], load(d, x + i + j * lanes));
  }
  for (; i + lanes <= n; i += lanes) best[0] = hn::Max(best[0], load(d, x + i));
  float highest = max_lanes(d, hn::Max(hn::Max(best[0], best[1]), hn::Max(best[2], best[3])));
  for (; i < n; ++i) highest = std::max(highest, x[i]);
  return highest;
}

// The first place of `value`; 0 where there is none (only NaN).
HWY_INLINE std::size_t first_place(const float* x, std::size_t n, float value) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const VF wanted = hn::Set(d, value);
  std::size_t i = 0;
  while (i + lanes <= n && hn::AllFalse(d, hn::Eq(load(d, x + i), wanted))) i += lanes;
  const float* found = std::find(x + i, x + n, value);
  return found == x + n ? 0 : static_cast<std::size_t>(found - x);
}

// Sum of e^z, z = x - highest; use(i, count, z, e, turn) sees every vector (e is zero beyond
// `count`), turn being 0 and 1 by turns, for sums of its own.
template <class Use>
HWY_INLINE float exponential_sum(const float* x, std::size_t n, float highest, Use&& use) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const VF top = hn::Set(d, highest), lowest = hn::Set(d, -104.0f);
  VF sums[2] = {hn::Zero(d), hn::Zero(d)};
  const auto step = [&](std::size_t i, std::size_t turn) {
    const std::size_t count = n - i;
    // A NaN stays one: in z, since x86 gives the second operand then, and in the sum by z's part in
    // it, since Exp makes it 0. Else e + 0 z is e.
    const VF z = hn::Max(lowest, hn::Sub(load_part(d, x + i, count), top));
    const VF e = hn::IfThenElseZero(hn::FirstN(d, count), hn::Exp(d, z));
    sums[turn] = hn::Add(sums[turn], hn::MulAdd(z, hn::Zero(d), e));
    use(i, count, z, e, turn);
  };
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    step(i, 0);
    step(i + lanes, 1);
  }
  for (; i < n; i += lanes) step(i, 0);
  return sum_lanes(d, hn::Add(sums[0], sums[1]));
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
