// Matrix products of attention, forward and backward, on blocks that stay in the nearest caches.
//
//   c[rows, columns] = c * alpha[rows] + a[rows, depth] b[depth, columns]
//
// Packing: operands are u32 words, one f32 or a pair of bf16 that multiply together (the pair lies
//          along the depth). A word of `a` meets a whole vector of b's.
// Bits:    an element's sum runs over the depth in order; neither rows nor columns change it.
// Include inside foreach_target files, after simd-inl.h.
#if defined(MEMSLOT_CPU_WORD_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_WORD_PRODUCT_INL_H_
#undef MEMSLOT_CPU_WORD_PRODUCT_INL_H_
#else
#define MEMSLOT_CPU_WORD_PRODUCT_INL_H_
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "generator/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace memslot::cpu::HWY_NAMESPACE {

using DU = hn::RebindToUnsigned<DF>;
using VU = hn::Vec<DU>;

// What one u32 word holds: acc += a * b on it, and the word of two values that follow each other
// along the depth (of one value where kPair is 1).
struct WordF32 {
  using Element = float;
  static constexpr std::size_t kPair = 1;
  static HWY_INLINE VF multiply_add(VU a, VU b, VF acc) {
    const DF d;
    return hn::MulAdd(hn::BitCast(d, a), hn::BitCast(d, b), acc);
  }
  static HWY_INLINE VU join(VF even, VF) { return hn::BitCast(DU(), even); }
};

struct WordBf16 {
  using Element = std::uint16_t;
  static constexpr std::size_t kPair = 2;
  static HWY_INLINE VF multiply_add(VU a, VU b, VF acc) {
    const DF d;
    const DU du;
    const auto high = hn::Set(du, 0xffff0000U);
    const auto low =
        hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(a)), hn::BitCast(d, hn::ShiftLeft<16>(b)), acc);
    return hn::MulAdd(hn::BitCast(d, hn::And(a, high)), hn::BitCast(d, hn::And(b, high)), low);
  }
  static HWY_INLINE VU join(VF even, VF odd) {
    const DF d;
    return hn::Or(rounded_bf16(d, even), hn::ShiftLeft<16>(rounded_bf16(d, odd)));
  }
};

#if HWY_TARGET == HWY_AVX3
struct WordNativeBf16 : WordBf16 {
  static HWY_INLINE VF multiply_add(VU a, VU b, VF acc) {
    return VF{_mm512_dpbf16_ps(acc.raw, (__m512bh)a.raw, (__m512bh)b.raw)};
  }
  // Subnormal values become zero.
  static HWY_INLINE VU join(VF even, VF odd) {
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return VU{_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd.raw, even.raw))};
  }
};
#else
using WordNativeBf16 = WordBf16;
#endif

// c[R][vectors * N] = c * alpha[R] + a[R][depth] b[depth][...]; alpha null: c is not read.
template <class Word, int kRows, int kVectors>
HWY_INLINE void product(const std::uint32_t* a, std::size_t a_stride, const std::uint32_t* b,
                        std::size_t b_stride, float* c, std::size_t c_stride, const float* alpha,
                        std::size_t depth) {
  const DF d;
  const DU du;
  const std::size_t lanes = hn::Lanes(d);
  const auto at = [&](int r, int v) {
    return c + static_cast<std::size_t>(r) * c_stride + static_cast<std::size_t>(v) * lanes;
  };
  VF sum[kRows][kVectors];  // in registers: every index below is a constant once loops are unrolled
  if (alpha == nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
    }
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sum[r][v] = hn::Mul(load(d, at(r, v)), hn::Set(d, alpha[r]));
    }
  }
  for (std::size_t k = 0; k < depth; ++k) {
    VU column[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      column[v] = hn::LoadU(du, b + k * b_stride + static_cast<std::size_t>(v) * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto word = hn::Set(du, a[static_cast<std::size_t>(r) * a_stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Word::multiply_add(word, column[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(d, sum[r][v], at(r, v));
  }
}

// Some rows of a at a time: as many as the registers hold beside their sums' operands, 6 * 4 of 32
// or 2 * 4 of 16.
template <class Word, int kVectors>
HWY_INLINE void product_rows_of(const std::uint32_t* a, std::size_t a_stride,
                                const std::uint32_t* b, std::size_t b_stride, float* c,
                                std::size_t c_stride, const float* alpha, std::size_t depth,
                                std::size_t rows) {
  std::size_t r = 0;
  const auto run = [&]<int kRows>() {
    product<Word, kRows, kVectors>(a + r * a_stride, a_stride, b, b_stride, c + r * c_stride,
                                   c_stride, alpha == nullptr ? nullptr : alpha + r, depth);
    r += kRows;
  };
#if HWY_TARGET == HWY_AVX3
  while (r + 6 <= rows) run.template operator()<6>();
  if (r + 4 <= rows) run.template operator()<4>();
  if (r + 3 <= rows) run.template operator()<3>();
#endif
  while (r + 2 <= rows) run.template operator()<2>();
  if (r < rows) run.template operator()<1>();
}

// REQUIRES: whole vectors of columns. Columns outermost: their part of b stays in the first cache.
template <class Word>
HWY_NOINLINE void product_rows(const std::uint32_t* a, std::size_t a_stride, const std::uint32_t* b,
                               std::size_t b_stride, float* c, std::size_t c_stride,
                               const float* alpha, std::size_t depth, std::size_t columns,
                               std::size_t rows) {
  const std::size_t lanes = hn::Lanes(DF());
  std::size_t i = 0;
  const auto run = [&]<int kVectors>() {
    product_rows_of<Word, kVectors>(a, a_stride, b + i, b_stride, c + i, c_stride, alpha, depth,
                                    rows);
    i += kVectors * lanes;
  };
  while (i + 4 * lanes <= columns) run.template operator()<4>();
  if (i + 2 * lanes <= columns) run.template operator()<2>();
  if (i < columns) run.template operator()<1>();
}

// to[w][r] = from[r][w] for r < rows, w < words.
HWY_INLINE void transpose_words(const std::uint32_t* from, std::size_t from_stride,
                                std::size_t rows, std::size_t words, std::uint32_t* to,
                                std::size_t to_stride) {
  std::size_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Full128<std::uint32_t> d4;
  const hn::Full128<std::uint64_t> d2;
  for (; r + 4 <= rows; r += 4) {
    const std::uint32_t* in = from + r * from_stride;
    std::size_t w = 0;
    for (; w + 4 <= words; w += 4) {
      const auto r0 = hn::LoadU(d4, in + w), r1 = hn::LoadU(d4, in + from_stride + w);
      const auto r2 = hn::LoadU(d4, in + 2 * from_stride + w);
      const auto r3 = hn::LoadU(d4, in + 3 * from_stride + w);
      const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d4, r0, r1));
      const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d4, r0, r1));
      const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d4, r2, r3));
      const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d4, r2, r3));
      std::uint32_t* out = to + w * to_stride + r;
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, low01, low23)), d4, out);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, low01, low23)), d4, out + to_stride);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveLower(d2, high01, high23)), d4, out + 2 * to_stride);
      hn::StoreU(hn::BitCast(d4, hn::InterleaveUpper(d2, high01, high23)), d4, out + 3 * to_stride);
    }
    for (; w < words; ++w) {
      for (std::size_t i = 0; i < 4; ++i) to[w * to_stride + r + i] = in[i * from_stride + w];
    }
  }
#endif
  for (; r < rows; ++r) {
    for (std::size_t w = 0; w < words; ++w) to[w * to_stride + r] = from[r * from_stride + w];
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
