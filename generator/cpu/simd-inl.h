// Per-target helpers of the Highway kernels: loads and stores of f32 and bf16 rows, whole vectors
// and tails alike, so that a lane's arithmetic never depends on where in a row it stands. Include
// after hwy/highway.h, inside foreach_target files.
#if defined(MEMSLOT_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_SIMD_INL_H_
#undef MEMSLOT_CPU_SIMD_INL_H_
#else
#define MEMSLOT_CPU_SIMD_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

HWY_INLINE VF load(DF d, const float* p) { return hn::LoadU(d, p); }

// bf16 is the upper half of an f32.
HWY_INLINE VF load(DF d, const std::uint16_t* p) {
  const hn::RebindToUnsigned<DF> du;
  const hn::Rebind<std::uint16_t, DF> dh;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, p))));
}

HWY_INLINE void store(DF d, VF v, float* p) { hn::StoreU(v, d, p); }

// Upper halves after rounding to nearest even; NaN stays a quiet NaN (as f32_to_bf16).
HWY_INLINE hn::Vec<hn::RebindToUnsigned<DF>> rounded_bf16(DF d, VF v) {
  const hn::RebindToUnsigned<DF> du;
  const auto u = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1));
  const auto up = hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(u, hn::Set(du, 0x400000));
  const auto nan = hn::RebindMask(du, hn::IsNaN(v));
  (void)d;
  return hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, up));
}

HWY_INLINE void store(DF d, VF v, std::uint16_t* p) {
  const hn::Rebind<std::uint16_t, DF> dh;
  const hn::RebindToSigned<DF> di;
  // The values fit 16 bits, so the saturating narrowing is exact.
  hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, rounded_bf16(d, v))), dh, p);
}

// The first `count` lanes (all if count >= Lanes), the rest zero.
template <class T>
HWY_INLINE VF load_part(DF d, const T* p, std::size_t count) {
  if (HWY_LIKELY(count >= hn::Lanes(d))) return load(d, p);
  HWY_ALIGN T part[hn::MaxLanes(DF())] = {};
  std::memcpy(part, p, count * sizeof(T));
  return load(d, part);
}

template <class T>
HWY_INLINE void store_part(DF d, VF v, T* p, std::size_t count) {
  if (HWY_LIKELY(count >= hn::Lanes(d))) return store(d, v, p);
  HWY_ALIGN T part[hn::MaxLanes(DF())];
  store(d, v, part);
  std::memcpy(p, part, count * sizeof(T));
}

// Calls fn(i, count) for the vectors of [0, n): count = Lanes but for the last.
template <class Fn>
HWY_INLINE void for_vectors(std::size_t n, Fn&& fn) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) fn(i, lanes);
  if (i < n) fn(i, n - i);
}

HWY_INLINE float sum_lanes(DF d, VF v) { return hn::GetLane(hn::SumOfLanes(d, v)); }
HWY_INLINE float max_lanes(DF d, VF v) { return hn::GetLane(hn::MaxOfLanes(d, v)); }

// Sum over i of term(i, count), on four accumulators: independent of the row, fixed by n alone.
// term must give zero in lanes beyond count.
template <class Term>
HWY_INLINE float sum_terms(std::size_t n, Term&& term) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  VF a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a0 = hn::Add(a0, term(i, lanes));
    a1 = hn::Add(a1, term(i + lanes, lanes));
    a2 = hn::Add(a2, term(i + 2 * lanes, lanes));
    a3 = hn::Add(a3, term(i + 3 * lanes, lanes));
  }
  for (; i < n; i += lanes) a0 = hn::Add(a0, term(i, n - i));
  return sum_lanes(d, hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)));
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
