// A register-blocked f32 product for blocks that stay in the nearest caches (attention's backward).
// Include inside foreach_target files, after simd-inl.h.
#if defined(MEMSLOT_CPU_SMALL_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_SMALL_GEMM_INL_H_
#undef MEMSLOT_CPU_SMALL_GEMM_INL_H_
#else
#define MEMSLOT_CPU_SMALL_GEMM_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "generator/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// Rows of c that one pass keeps in registers, times two vectors of columns.
inline constexpr int kGemmRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

// c[Rows, 2 vectors] (+)= a[Rows, k] b[k, 2 vectors]; a(i, p) = a[i * a_row + p * a_col].
template <int Rows>
HWY_INLINE void gemm_tile(const float* HWY_RESTRICT a, std::size_t a_row, std::size_t a_col,
                          const float* HWY_RESTRICT b, std::size_t b_row, float* HWY_RESTRICT c,
                          std::size_t c_row, std::size_t k, bool add) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  VF low[Rows], high[Rows];
  for (int i = 0; i < Rows; ++i) low[i] = high[i] = hn::Zero(d);
  for (std::size_t p = 0; p < k; ++p) {
    const VF b0 = hn::LoadU(d, b + p * b_row);
    const VF b1 = hn::LoadU(d, b + p * b_row + lanes);
    for (int i = 0; i < Rows; ++i) {
      const VF x = hn::Set(d, a[static_cast<std::size_t>(i) * a_row + p * a_col]);
      low[i] = hn::MulAdd(x, b0, low[i]);
      high[i] = hn::MulAdd(x, b1, high[i]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    float* out = c + static_cast<std::size_t>(i) * c_row;
    if (add) {
      low[i] = hn::Add(low[i], hn::LoadU(d, out));
      high[i] = hn::Add(high[i], hn::LoadU(d, out + lanes));
    }
    hn::StoreU(low[i], d, out);
    hn::StoreU(high[i], d, out + lanes);
  }
}

// c[m, n] (+)= a[m, k] b[k, n]. REQUIRES: m a multiple of 8, n of 32 (no tails: callers pad).
HWY_INLINE void small_gemm(const float* a, std::size_t a_row, std::size_t a_col, const float* b,
                           std::size_t b_row, float* c, std::size_t c_row, std::size_t m,
                           std::size_t n, std::size_t k, bool add) {
  const std::size_t width = 2 * hn::Lanes(DF());
  for (std::size_t j = 0; j < n; j += width) {
    for (std::size_t i = 0; i < m; i += kGemmRows) {
      gemm_tile<kGemmRows>(a + i * a_row, a_row, a_col, b + j, b_row, c + i * c_row + j, c_row, k,
                           add);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
