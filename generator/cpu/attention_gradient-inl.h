// Per head, with P the causal softmax of scale Q K^T:
//   dP = dO V^T;  dS = P * (dP - rowsum(P dP)) * scale;  dQ = dS K;  dK = dS^T Q;  dV = P^T dO
// in blocks of query rows against all keys up to the block's end. The rows of the heads that share
// keys and values are one matrix. dK and dV are kept transposed, dK^T = Q^T dS, so that P and dS
// are never transposed themselves. Products are as in word_product-inl.h: pairs of bf16 lie along
// d in S and dP, along the keys in dQ, and along the query rows in dK and dV.
// Include inside foreach_target files, after simd-inl.h.
#if defined(MEMSLOT_CPU_ATTENTION_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEMSLOT_CPU_ATTENTION_GRADIENT_INL_H_
#undef MEMSLOT_CPU_ATTENTION_GRADIENT_INL_H_
#else
#define MEMSLOT_CPU_ATTENTION_GRADIENT_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "generator/cpu/attention_gradient.h"
#include "generator/cpu/simd-inl.h"
#include "generator/cpu/word_product-inl.h"
#include "hwy/aligned_allocator.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
namespace memslot::cpu::HWY_NAMESPACE {

constexpr std::size_t kLine = 16;  // words of a cache line, and lanes of the widest vector

HWY_INLINE std::size_t whole_lines(std::size_t n) { return (n + kLine - 1) / kLine * kLine; }

// A thread's working memory, grown to the largest task it has seen. All of it is u32 words; where
// "words" stands, each holds a pair of bf16 or one f32.
class GradientSpace {
 public:
  std::size_t words = 0, width = 0, row_words = 0;
  std::uint32_t* staged = nullptr;                          // [keys][words]
  std::uint32_t *key_t = nullptr, *value_t = nullptr;       // [words][key_stride]
  std::uint32_t* key = nullptr;                             // [key_stride words][width]
  std::uint32_t *query = nullptr, *dout = nullptr;          // [rows][words]
  std::uint32_t* joined = nullptr;                          // [row_words][width]
  std::uint32_t *query_t = nullptr, *dout_t = nullptr;      // [d][row_words]
  std::uint32_t *p_joined = nullptr, *ds_joined = nullptr;  // [row_words][key_stride]
  std::uint32_t* ds = nullptr;                              // [rows][key_stride words]
  float *p = nullptr, *dp = nullptr;                        // [rows][key_stride]
  float *dquery = nullptr, *ones = nullptr;                 // [rows][width]; [rows or d]

  void fit(const GradientTask& task, std::size_t pair) {
    lay_out(task, pair, nullptr);
    if (needed_ > size_) {
      memory_ = hwy::AllocateAligned<std::uint32_t>(needed_);
      size_ = needed_;
    }
    lay_out(task, pair, memory_.get());
    std::fill_n(ones, std::max(row_words * pair, task.head_dim), 1.0f);
  }

 private:
  void lay_out(const GradientTask& task, std::size_t pair, std::uint32_t* base) {
    const std::size_t d = task.head_dim, keys = task.key_stride;
    const std::size_t rows = (task.block * task.group + 1) / 2 * 2;
    needed_ = 0;
    const auto take = [&](std::size_t count) {
      std::uint32_t* at = base == nullptr ? nullptr : base + needed_;
      needed_ += whole_lines(count);
      return at;
    };
    const auto take_floats = [&](std::size_t count) {
      return reinterpret_cast<float*>(take(count));
    };
    words = (d + pair - 1) / pair, width = whole_lines(d), row_words = rows / pair;
    staged = take(keys * words);
    key_t = take(words * keys), value_t = take(words * keys), key = take(keys / pair * width);
    query = take(rows * words), dout = take(rows * words), joined = take(row_words * width);
    query_t = take(d * row_words), dout_t = take(d * row_words);
    p = take_floats(rows * keys), dp = take_floats(rows * keys);
    dquery = take_floats(rows * width), ones = take_floats(std::max(rows, d));
    if (pair == 1) {  // a word is a value: P and dS stay where they are
      p_joined = reinterpret_cast<std::uint32_t*>(p);
      ds_joined = ds = reinterpret_cast<std::uint32_t*>(dp);
    } else {
      p_joined = take(row_words * keys), ds_joined = take(row_words * keys);
      ds = take(rows * keys / pair);
    }
  }

  hwy::AlignedFreeUniquePtr<std::uint32_t[]> memory_;
  std::size_t size_ = 0, needed_ = 0;
};

// One row of `dim` values as words, the last one filled up with zero.
template <class Word, class From>
HWY_INLINE void take_row(const From* from, std::size_t dim, std::uint32_t* to, std::size_t words) {
  const DF d;
  auto* out = reinterpret_cast<typename Word::Element*>(to);
  for_vectors(words * Word::kPair, [&](std::size_t i, std::size_t count) {
    store_part(d, load_part(d, from + i, i < dim ? dim - i : 0), out + i, count);
  });
}

// to[j][i] = the word of rows j * kPair ... of `from` [rows][words]; rows from `valid` on are zero.
template <class Word>
HWY_INLINE void join_rows(const std::uint32_t* from, std::size_t words, std::size_t valid,
                          std::size_t dim, std::uint32_t* to, std::size_t width, std::size_t rows) {
  const DF d;
  const auto* in = reinterpret_cast<const typename Word::Element*>(from);
  const std::size_t stride = words * Word::kPair;
  for (std::size_t r = 0; r < rows; r += Word::kPair) {
    for (std::size_t i = 0; i < width; i += hn::Lanes(d)) {
      const std::size_t left = i < dim ? dim - i : 0;
      const VF even = load_part(d, in + r * stride + i, r < valid ? left : 0);
      const VF odd = load_part(d, in + (r + 1) * stride + i, r + 1 < valid ? left : 0);
      hn::StoreU(Word::join(even, odd), DU(), to + r / Word::kPair * width + i);
    }
  }
}

// A row's scores to exp(scale (s - max)) of its first `seen` entries, zero beyond.
struct RowSums {
  float sum;  // of the exponentials
  float dot;  // of their products with dP
};
HWY_INLINE RowSums exponentials(float* s, const float* dp, std::size_t seen, std::size_t columns,
                                float scale) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d), whole = seen / lanes * lanes;
  const VF factor = hn::Set(d, scale), low = hn::Set(d, -3.0e38f);
  const auto rest = hn::FirstN(d, seen - whole);
  VF top = whole < seen ? hn::IfThenElse(rest, load(d, s + whole), low) : low;
  for (std::size_t i = 0; i < whole; i += lanes) top = hn::Max(top, load(d, s + i));
  const VF shift = hn::Mul(hn::Set(d, max_lanes(d, top)), factor);
  VF sum = hn::Zero(d), dot = hn::Zero(d);
  const auto step = [&](std::size_t i, VF e) {
    sum = hn::Add(sum, e);
    dot = hn::MulAdd(e, load(d, dp + i), dot);
    store(d, e, s + i);
  };
  const auto z = [&](std::size_t i) { return hn::MulSub(load(d, s + i), factor, shift); };
  for (std::size_t i = 0; i < whole; i += lanes) step(i, hn::Exp(d, z(i)));
  std::size_t i = whole;
  if (i < seen) {
    step(i, hn::IfThenElseZero(rest, hn::Exp(d, hn::IfThenElseZero(rest, z(i)))));
    i += lanes;
  }
  for (; i < columns; i += lanes) store(d, hn::Zero(d), s + i);
  return {sum_lanes(d, sum), sum_lanes(d, dot)};
}

// The lower 16 bits of every word.
HWY_INLINE void store_lower(VU words, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, DF> dh;
  const hn::RebindToSigned<DF> di;
  hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, words)), dh, to);
}

// Rows r and r + 1 of exponentials and dP to P and dS.
template <class Word>
HWY_INLINE void finish_rows(const GradientTask& task, const GradientSpace& space, std::size_t r,
                            const RowSums* sums, std::size_t columns) {
  const DF d;
  const DU du;
  const std::size_t stride = task.key_stride;
  float *p0 = space.p + r * stride, *p1 = p0 + stride;
  float *dp0 = space.dp + r * stride, *dp1 = dp0 + stride;
  const VF inverse0 = hn::Set(d, 1.0f / sums[0].sum), inverse1 = hn::Set(d, 1.0f / sums[1].sum);
  const VF mean0 = hn::Set(d, sums[0].dot / sums[0].sum);
  const VF mean1 = hn::Set(d, sums[1].dot / sums[1].sum), scale = hn::Set(d, task.scale);
  for (std::size_t i = 0; i < columns; i += hn::Lanes(d)) {
    const VF a = hn::Mul(load(d, p0 + i), inverse0), b = hn::Mul(load(d, p1 + i), inverse1);
    const VF da = hn::Mul(hn::Mul(a, scale), hn::Sub(load(d, dp0 + i), mean0));
    const VF db = hn::Mul(hn::Mul(b, scale), hn::Sub(load(d, dp1 + i), mean1));
    if constexpr (Word::kPair == 1) {
      store(d, a, p0 + i), store(d, b, p1 + i);
      store(d, da, dp0 + i), store(d, db, dp1 + i);
    } else {
      hn::StoreU(Word::join(a, b), du, space.p_joined + r / 2 * stride + i);
      const VU words = Word::join(da, db);
      hn::StoreU(words, du, space.ds_joined + r / 2 * stride + i);
      auto* ds = reinterpret_cast<std::uint16_t*>(space.ds) + r * stride + i;
      store_lower(hn::And(words, hn::Set(du, 0xffff)), ds);
      store_lower(hn::ShiftRight<16>(words), ds + stride);
    }
  }
}

template <class Word>
HWY_INLINE void take_keys(const GradientTask& task, GradientSpace& space) {
  const std::size_t words = space.words, stride = task.key_stride;
  const auto transpose_to = [&](const float* from, std::uint32_t* to) {
    for (std::size_t t = 0; t < task.count; ++t)
      take_row<Word>(from + t * task.stride, task.head_dim, space.staged + t * words, words);
    transpose_words(space.staged, words, task.count, words, to, stride);
    for (std::size_t w = 0; w < words; ++w)
      std::fill(to + w * stride + task.count, to + (w + 1) * stride, 0);
  };
  transpose_to(task.value, space.value_t);
  transpose_to(task.key, space.key_t);
  join_rows<Word>(space.staged, words, task.count, task.head_dim, space.key, space.width, stride);
}

// The virtual rows of a block, those from `valid` on zero.
template <class Word, class From>
HWY_INLINE void take_queries(const GradientTask& task, const From* from, std::size_t from_stride,
                             std::size_t valid, std::size_t rows, const GradientSpace& space,
                             std::uint32_t* to, std::uint32_t* to_t) {
  const std::size_t d = task.head_dim, words = space.words;
  for (std::size_t r = 0; r < valid; ++r) {
    take_row<Word>(from + r / task.group * from_stride + r % task.group * d, d, to + r * words,
                   words);
  }
  std::fill(to + valid * words, to + rows * words, 0);
  join_rows<Word>(to, words, rows, d, space.joined, space.width, rows);
  transpose_words(space.joined, space.width, rows / Word::kPair, d, to_t, space.row_words);
}

// dQ = dS K, in steps along the keys whose part of K stays in the first cache.
template <class Word>
HWY_INLINE void query_gradients(const GradientTask& task, const GradientSpace& space,
                                std::size_t first, std::size_t valid, std::size_t columns) {
  constexpr std::size_t kStep = 64;
  const std::size_t width = space.width, d = task.head_dim, depth = columns / Word::kPair;
  for (std::size_t k = 0; k < depth; k += kStep) {
    product_rows<Word>(space.ds + k, task.key_stride / Word::kPair, space.key + k * width, width,
                       space.dquery, width, k == 0 ? nullptr : space.ones,
                       std::min(kStep, depth - k), width, valid);
  }
  for (std::size_t r = 0; r < valid; ++r) {
    std::memcpy(task.dquery + (first + r / task.group) * task.dquery_stride + r % task.group * d,
                space.dquery + r * width, d * sizeof(float));
  }
}

// Positions [first, first + block). `add`: to the shares of later blocks.
template <class Word>
HWY_INLINE void gradient_block(const GradientTask& task, GradientSpace& space, std::size_t first,
                               bool add) {
  using T = typename Word::Element;
  const std::size_t end = std::min(first + task.block, task.count), d = task.head_dim;
  const std::size_t valid = (end - first) * task.group, rows = (valid + 1) / 2 * 2;
  const std::size_t columns = whole_lines(end), stride = task.key_stride, words = space.words;
  take_queries<Word>(task, task.query + first * task.stride, task.stride, valid, rows, space,
                     space.query, space.query_t);
  take_queries<Word>(task, static_cast<const T*>(task.dy) + first * task.dy_stride, task.dy_stride,
                     valid, rows, space, space.dout, space.dout_t);
  product_rows<Word>(space.query, words, space.key_t, stride, space.p, stride, nullptr, words,
                     columns, rows);
  product_rows<Word>(space.dout, words, space.value_t, stride, space.dp, stride, nullptr, words,
                     columns, rows);
  for (std::size_t r = 0; r < rows; r += 2) {
    RowSums sums[2];
    for (std::size_t i = 0; i < 2; ++i) {
      // A row past the last has dO = 0, hence dS = 0, and its P meets dO = 0: it adds nothing.
      const std::size_t seen = std::min(first + (r + i) / task.group + 1, end);
      sums[i] = exponentials(space.p + (r + i) * stride, space.dp + (r + i) * stride, seen, columns,
                             task.scale);
    }
    finish_rows<Word>(task, space, r, sums, columns);
  }
  query_gradients<Word>(task, space, first, valid, columns);
  const float* alpha = add ? space.ones : nullptr;
  const std::size_t depth = rows / Word::kPair;
  product_rows<Word>(space.query_t, space.row_words, space.ds_joined, stride, task.dkey, stride,
                     alpha, depth, columns, d);
  product_rows<Word>(space.dout_t, space.row_words, space.p_joined, stride, task.dvalue, stride,
                     alpha, depth, columns, d);
}

template <class Word>
HWY_INLINE void gradient_part(const GradientTask& task) {
  static thread_local GradientSpace space;
  space.fit(task, Word::kPair);
  take_keys<Word>(task, space);
  bool add = false;
  for (std::size_t index = task.blocks(); index-- > 0;) {
    if (!task.in_part(index)) continue;
    if (!add) {  // what no block of this part reaches
      const std::size_t reached = whole_lines(std::min((index + 1) * task.block, task.count));
      for (std::size_t i = 0; i < task.head_dim; ++i) {
        const std::size_t from = i * task.key_stride + reached, to = (i + 1) * task.key_stride;
        std::fill(task.dkey + from, task.dkey + to, 0.0f);
        std::fill(task.dvalue + from, task.dvalue + to, 0.0f);
      }
    }
    gradient_block<Word>(task, space, index * task.block, add);
    add = true;
  }
}

void attention_gradient(const GradientTask& task) {
  if (!task.bf16) {
    gradient_part<WordF32>(task);
  } else if (task.native_bf16) {
    gradient_part<WordNativeBf16>(task);
  } else {
    gradient_part<WordBf16>(task);
  }
}

void sum_shares(const GradientSum& sum) {
  const DF d;
  const std::size_t size = sum.head_dim * sum.key_stride;
  for (std::size_t part = 1; part < sum.parts; ++part) {
    const float* from = sum.shares + part * sum.share_stride;
    for (std::size_t i = 0; i < size; i += hn::Lanes(d))
      store(d, hn::Add(load(d, sum.shares + i), load(d, from + i)), sum.shares + i);
  }
  transpose_words(reinterpret_cast<const std::uint32_t*>(sum.shares), sum.key_stride, sum.head_dim,
                  sum.count, reinterpret_cast<std::uint32_t*>(sum.to), sum.to_stride);
}

}  // namespace memslot::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
