// Attention of one tile: some query rows of the heads that share one key/value head, over all
// blocks of 64 positions up to the last row's own. Milakov & Gimelshein 2018 (online softmax); Dao
// et al. 2022 (tiles).
//
// For every row and block:  s = scale q K^T;  m' = max(m, max s);  p = exp(s - m');
//                           l = l exp(m - m') + sum p;  acc = acc exp(m - m') + p V
//
// Bits: a row's sums run over whole blocks in order, its own masked positions adding p = 0; rows of
// a tile share loads, never sums. So neither the tile nor the batch changes a row. Packing:
// operands are u32 words, one f32 or a pair of bf16 that multiply together. K is transposed, so
// that one vector holds as many positions; V's pairs are two positions of one column. Include
// inside foreach_target files, after simd-inl.h.
#if defined(MEMSLOT_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_ATTENTION_INL_H_
#undef MEMSLOT_CPU_ATTENTION_INL_H_
#else
#define MEMSLOT_CPU_ATTENTION_INL_H_
#endif

#include "generator/cpu/attention_tile.h"
#include "generator/cpu/simd-inl.h"
#include "generator/cpu/word_product-inl.h"
#include "generator/kernels/attention_block.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace memslot::cpu::HWY_NAMESPACE {

constexpr std::size_t kKeys = static_cast<std::size_t>(kernels::kAttentionBlock);

// to[w][j] = from[j][w] for j < 64; rows j >= valid are zero. `words` per row of `from`.
HWY_INLINE void transpose_keys(const std::uint32_t* from, std::size_t words, std::size_t valid,
                               std::uint32_t* to) {
  transpose_words(from, words, valid, words, to, kKeys);
  for (std::size_t w = 0; w < words; ++w)
    std::fill(to + w * kKeys + valid, to + (w + 1) * kKeys, 0);
}

// One f32 row per position, padded with zeros to `width`; rows from `valid` on are zero.
HWY_INLINE void pack_values(const float* from, std::size_t d_head, std::size_t width,
                            std::size_t valid, std::uint32_t* to) {
  const DF d;
  const DU du;
  for (std::size_t j = 0; j < kKeys; ++j) {
    for (std::size_t i = 0; i < width; i += hn::Lanes(d)) {
      const std::size_t count = j < valid && i < d_head ? d_head - i : 0;
      hn::StoreU(hn::BitCast(du, load_part(d, from + j * d_head + i, count)), du,
                 to + j * width + i);
    }
  }
}

// The same in pairs of positions: word = value[2j] | value[2j + 1] << 16.
HWY_INLINE void pack_values(const std::uint16_t* from, std::size_t d_head, std::size_t width,
                            std::size_t valid, std::uint32_t* to) {
  const DF d;
  const DU du;
  for (std::size_t j = 0; j < kKeys; j += 2) {
    for (std::size_t i = 0; i < width; i += hn::Lanes(d)) {
      const std::size_t left = i < d_head ? d_head - i : 0;
      // load() shifts up by 16; the even position goes back down.
      const auto even = hn::BitCast(du, load_part(d, from + j * d_head + i, j < valid ? left : 0));
      const auto odd =
          hn::BitCast(du, load_part(d, from + (j + 1) * d_head + i, j + 1 < valid ? left : 0));
      hn::StoreU(hn::Or(hn::ShiftRight<16>(even), odd), du, to + j / 2 * width + i);
    }
  }
}

HWY_INLINE VF keep_probability(DF d, VF p, float* to) {
  store(d, p, to);
  return p;
}

// Rounded before it is summed, so that the weights applied to V add up to the l that divides them.
HWY_INLINE VF keep_probability(DF d, VF p, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, DF> dh;
  const hn::RebindToSigned<DF> di;
  const auto upper = rounded_bf16(d, p);
  hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, upper)), dh, to);
  return hn::BitCast(d, hn::ShiftLeft<16>(upper));
}

// Highest of m and of a row's block of scores s (64, unscaled), of which the first `valid` count.
HWY_INLINE float highest_score(const float* s, float scale, std::size_t valid, float m) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const auto by = hn::Set(d, scale), low = hn::Set(d, -3.0e38f);
  VF top = low;
  std::size_t i = 0;
  for (; i + lanes <= valid; i += lanes) top = hn::Max(top, hn::Mul(load(d, s + i), by));
  if (i < valid) {
    const auto in = hn::FirstN(d, valid - i);
    top = hn::Max(top, hn::IfThenElse(in, hn::Mul(load(d, s + i), by), low));
  }
  return std::max(m, max_lanes(d, top));
}

// The scores to probabilities p = exp(scale s - m), zero beyond `valid`; their sum.
template <class T>
HWY_INLINE float soften(const float* s, float scale, std::size_t valid, float m, T* p) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  const auto by = hn::Set(d, scale), shift = hn::Set(d, m);
  const auto z = [&](std::size_t i) { return hn::Sub(hn::Mul(load(d, s + i), by), shift); };
  VF sum = hn::Zero(d);
  std::size_t i = 0;
  for (; i + lanes <= valid; i += lanes)
    sum = hn::Add(sum, keep_probability(d, hn::Exp(d, z(i)), p + i));
  if (i < valid) {
    const auto in = hn::FirstN(d, valid - i);
    const auto e = hn::Exp(d, hn::IfThenElseZero(in, z(i)));
    sum = hn::Add(sum, keep_probability(d, hn::IfThenElseZero(in, e), p + i));
    i += lanes;
  }
  for (; i < kKeys; i += lanes) keep_probability(d, hn::Zero(d), p + i);
  return sum_lanes(d, sum);
}

// Rows [first, last): scores of the block at position `block` to probabilities; updates m and l,
// leaves exp(m_old - m_new) in alpha.
template <class Word>
HWY_INLINE void soften_rows(const AttentionTile& tile, std::size_t block, std::size_t first,
                            std::size_t last, TileScratch& scratch) {
  using T = typename Word::Element;
  const DF d;
  const auto valid = [&](std::size_t r) {
    return std::min(kKeys, tile.position + r / tile.group + 1 - block);
  };
  for (std::size_t r = first; r < last; ++r) {
    const float highest =
        highest_score(scratch.scores + r * kKeys, tile.scale, valid(r), scratch.highest[r]);
    scratch.alpha[r] = std::max(scratch.highest[r] - highest, -200.0f);
    scratch.highest[r] = highest;
  }
  for_vectors(last - first, [&](std::size_t i, std::size_t count) {
    float* alpha = scratch.alpha + first + i;
    store_part(d, hn::Exp(d, load_part(d, alpha, count)), alpha, count);
  });
  for (std::size_t r = first; r < last; ++r) {
    T* p = reinterpret_cast<T*>(scratch.weights + r * (kKeys / Word::kPair));
    const float sum =
        soften(scratch.scores + r * kKeys, tile.scale, valid(r), scratch.highest[r], p);
    scratch.sum[r] = scratch.sum[r] * scratch.alpha[r] + sum;
  }
}

template <class Word>
HWY_INLINE void attend_tile(const AttentionTile& tile, TileScratch& scratch) {
  using T = typename Word::Element;
  const DF d;
  const std::size_t d_head = tile.head_dim, words = scratch.key_words, width = scratch.width;
  const std::size_t rows = tile.rows * tile.group, p_words = kKeys / Word::kPair;
  for (std::size_t r = 0; r < rows; ++r) {
    const float* q = tile.query + (r / tile.group) * tile.query_stride + (r % tile.group) * d_head;
    T* to = reinterpret_cast<T*>(scratch.query + r * words);
    for_vectors(d_head, [&](std::size_t i, std::size_t count) {
      store_part(d, load_part(d, q + i, count), to + i, count);
    });
    scratch.highest[r] = -3.0e38f;
    scratch.sum[r] = 0;
  }
  std::fill(scratch.out, scratch.out + rows * width, 0.0f);
  const T* keys = static_cast<const T*>(tile.keys);
  const T* values = static_cast<const T*>(tile.values);
  const std::size_t end = tile.position + tile.rows;  // positions that the last row sees
  for (std::size_t block = 0; block < end; block += kKeys) {
    const std::size_t valid = std::min(kKeys, end - block);
    transpose_keys(reinterpret_cast<const std::uint32_t*>(keys + block * d_head), words, valid,
                   scratch.keys);
    pack_values(values + block * d_head, d_head, width, valid, scratch.values);
    // Rows that lie before this block take no part in it.
    const std::size_t skip = block > tile.position ? (block - tile.position) * tile.group : 0;
    const std::size_t active = rows - skip;
    product_rows<Word>(scratch.query + skip * words, words, scratch.keys, kKeys,
                       scratch.scores + skip * kKeys, kKeys, nullptr, words, kKeys, active);
    soften_rows<Word>(tile, block, skip, rows, scratch);
    product_rows<Word>(scratch.weights + skip * p_words, p_words, scratch.values, width,
                       scratch.out + skip * width, width, scratch.alpha + skip, p_words, width,
                       active);
  }
}

template <class T>
HWY_INLINE void finish_row(const float* out, float sum, T* y, std::size_t n) {
  const DF d;
  const auto by = hn::Set(d, 1.0f / sum);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    // + 0 turns a negative zero, whose sign masked positions could change, into zero.
    store_part(d, hn::Add(hn::Mul(load_part(d, out + i, count), by), hn::Zero(d)), y + i, count);
  });
}

void finish_tile(const AttentionTile& tile, const TileScratch& scratch) {
  for (std::size_t r = 0; r < tile.rows * tile.group; ++r) {
    const std::size_t at = (r / tile.group) * tile.out_stride + (r % tile.group) * tile.head_dim;
    const float* out = scratch.out + r * scratch.width;
    if (tile.out_dtype == DType::kBF16) {
      finish_row(out, scratch.sum[r], static_cast<std::uint16_t*>(tile.out) + at, tile.head_dim);
    } else {
      finish_row(out, scratch.sum[r], static_cast<float*>(tile.out) + at, tile.head_dim);
    }
  }
}

void attend(const AttentionTile& tile, TileScratch& scratch) {
  if (tile.kv_dtype == DType::kF32) {
    attend_tile<WordF32>(tile, scratch);
  } else if (tile.native_bf16) {
    attend_tile<WordNativeBf16>(tile, scratch);
  } else {
    attend_tile<WordBf16>(tile, scratch);
  }
  finish_tile(tile, scratch);
}

}  // namespace memslot::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
