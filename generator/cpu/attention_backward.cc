#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/attention_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>
#include <limits>
#include <vector>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "generator/cpu/small_gemm-inl.h"
#include "hwy/contrib/math/math-inl.h"

// Per head, with P the causal softmax of scale Q K^T:
//   dP = dO V^T;  dS = P * (dP - rowsum(P dP)) * scale;  dQ = dS K;  dK = dS^T Q;  dV = P^T dO
// in blocks of kBlock query rows against all keys up to the block's end, so that nothing larger
// than kBlock x T is held. Positions are padded with zeros to whole blocks, widths to whole pairs
// of vectors; padded rows and columns have P = dS = 0.
HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

inline constexpr std::size_t kBlock = 64;

// One head's operands, packed. All [tokens_padded][width] but for the transposes.
struct HeadWork {
  std::size_t tokens = 0, padded = 0, width = 0, dim = 0;
  std::vector<float> q, k, v, dout, k_t, v_t, dq, dk, dv, p, dp;

  void resize(std::size_t count, std::size_t head_dim) {
    tokens = count;
    dim = head_dim;
    padded = (count + kBlock - 1) / kBlock * kBlock;
    width = (head_dim + 31) / 32 * 32;
    for (auto* part : {&q, &k, &v, &dout, &k_t, &v_t, &dq, &dk, &dv})
      part->assign(padded * width, 0.0f);
    p.resize(kBlock * padded);
    dp.resize(kBlock * padded);
  }
};

HWY_INLINE void take(const float* from, std::int64_t stride, const HeadWork& work,
                     std::vector<float>& to) {
  for (std::size_t t = 0; t < work.tokens; ++t) {
    std::memcpy(to.data() + t * work.width, from + static_cast<std::int64_t>(t) * stride,
                work.dim * sizeof(float));
  }
}

HWY_INLINE void transpose(const HeadWork& work, const std::vector<float>& from,
                          std::vector<float>& to) {
  for (std::size_t t = 0; t < work.padded; ++t) {
    for (std::size_t i = 0; i < work.dim; ++i) to[i * work.padded + t] = from[t * work.width + i];
  }
}

// Turns a row of scores into probabilities of its first `count` entries; zero beyond.
HWY_INLINE void softmax_row(float* row, std::size_t count, std::size_t size, float scale) {
  const DF d;
  const VF factor = hn::Set(d, scale);
  VF best = hn::Set(d, -std::numeric_limits<float>::infinity());
  for_vectors(count, [&](std::size_t i, std::size_t part) {
    const VF v = hn::Mul(load_part(d, row + i, part), factor);
    best = hn::Max(best, hn::IfThenElse(hn::FirstN(d, part), v, best));
  });
  const VF top = hn::Set(d, max_lanes(d, best));
  VF sum = hn::Zero(d);
  for_vectors(size, [&](std::size_t i, std::size_t part) {
    if (i >= count) return store_part(d, hn::Zero(d), row + i, part);
    const VF e = hn::Exp(d, hn::Sub(hn::Mul(load_part(d, row + i, part), factor), top));
    const VF kept = hn::IfThenElseZero(hn::FirstN(d, count - i < part ? count - i : part), e);
    sum = hn::Add(sum, kept);
    store_part(d, kept, row + i, part);
  });
  const VF inverse = hn::Set(d, 1.0f / sum_lanes(d, sum));
  for_vectors(count, [&](std::size_t i, std::size_t part) {
    store_part(d, hn::Mul(load_part(d, row + i, part), inverse), row + i, part);
  });
}

// dp := p (dp - sum(p dp)) scale, over `size` entries.
HWY_INLINE void softmax_row_backward(const float* p, float* dp, std::size_t size, float scale) {
  const DF d;
  const VF dot = hn::Set(d, sum_terms(size, [&](std::size_t i, std::size_t part) {
                           return hn::Mul(load_part(d, p + i, part), load_part(d, dp + i, part));
                         }));
  const VF factor = hn::Set(d, scale);
  for_vectors(size, [&](std::size_t i, std::size_t part) {
    const VF centred = hn::Sub(load_part(d, dp + i, part), dot);
    store_part(d, hn::Mul(hn::Mul(load_part(d, p + i, part), centred), factor), dp + i, part);
  });
}

HWY_INLINE void query_block(HeadWork& w, std::size_t first, float scale) {
  const std::size_t keys = first + kBlock;  // all positions up to the block's end
  const float* q = w.q.data() + first * w.width;
  const float* dout = w.dout.data() + first * w.width;
  small_gemm(q, w.width, 1, w.k_t.data(), w.padded, w.p.data(), keys, kBlock, keys, w.dim, false);
  small_gemm(dout, w.width, 1, w.v_t.data(), w.padded, w.dp.data(), keys, kBlock, keys, w.dim,
             false);
  for (std::size_t r = 0; r < kBlock; ++r) {
    const std::size_t seen = first + r < w.tokens ? first + r + 1 : w.tokens;
    softmax_row(w.p.data() + r * keys, seen, keys, scale);
    softmax_row_backward(w.p.data() + r * keys, w.dp.data() + r * keys, keys, scale);
  }
  // Rows past the last token have dO = 0, hence dP = dS = 0, and P meets dO = 0: they add nothing.
  small_gemm(w.dp.data(), keys, 1, w.k.data(), w.width, w.dq.data() + first * w.width, w.width,
             kBlock, w.width, keys, false);
  small_gemm(w.dp.data(), 1, keys, q, w.width, w.dk.data(), w.width, keys, w.width, kBlock, true);
  small_gemm(w.p.data(), 1, keys, dout, w.width, w.dv.data(), w.width, keys, w.width, kBlock, true);
}

// q, k, v, dout: the head's first element in the span's first row.
void attention_head_backward(const float* q, const float* k, const float* v, std::int64_t stride,
                             const float* dout, std::int64_t dout_stride, HeadWork& work) {
  take(q, stride, work, work.q);
  take(k, stride, work, work.k);
  take(v, stride, work, work.v);
  take(dout, dout_stride, work, work.dout);
  transpose(work, work.k, work.k_t);
  transpose(work, work.v, work.v_t);
  const float scale = 1.0f / std::sqrt(static_cast<float>(work.dim));
  for (std::size_t first = 0; first < work.padded; first += kBlock) query_block(work, first, scale);
}

// One kv head's share of `part` heads: the whole task, so that no two threads write one place.
void attention_task(const ConstMatrix& qkv, const AttentionShape& shape, const AttentionSpan& span,
                    const ConstMatrix& dy, int head, float* dk, float* dv, const Matrix& dqkv) {
  static thread_local HeadWork work;
  const std::int64_t d = shape.head_dim, per = shape.heads / shape.kv_heads;
  const float* row = qkv.f32() + span.row * qkv.stride;
  const std::int64_t key = (shape.heads + head / per) * d, value = key + shape.kv_heads * d;
  work.resize(static_cast<std::size_t>(span.count), static_cast<std::size_t>(d));
  attention_head_backward(row + head * d, row + key, row + value, qkv.stride,
                          dy.f32() + span.row * dy.stride + head * d, dy.stride, work);
  const std::size_t bytes = work.dim * sizeof(float);
  for (std::int64_t t = 0; t < span.count; ++t) {
    const std::size_t from = static_cast<std::size_t>(t) * work.width;
    std::memcpy(dqkv.f32() + (span.row + t) * dqkv.stride + head * d, work.dq.data() + from, bytes);
    std::memcpy(dk + (span.row + t) * d, work.dk.data() + from, bytes);
    std::memcpy(dv + (span.row + t) * d, work.dv.data() + from, bytes);
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(attention_task);

namespace {

// Adds the query heads' shares of each key/value head, in the order of the heads.
void reduce_row(const float* shares, std::int64_t head_stride, std::int64_t per, std::int64_t d,
                float* to) {
  for (std::int64_t i = 0; i < d; ++i) {
    float sum = shares[i];
    for (std::int64_t h = 1; h < per; ++h) sum += shares[h * head_stride + i];
    to[i] = sum;
  }
}

}  // namespace
}  // namespace cpu

void CpuBackend::attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                                    std::span<const AttentionSpan> spans, ConstMatrix dy,
                                    Matrix dqkv) {
  const std::int64_t d = shape.head_dim, heads = shape.heads, groups = shape.kv_heads;
  MEMSLOT_CHECK(qkv.dtype == DType::kF32 && dy.dtype == DType::kF32 && dqkv.dtype == DType::kF32);
  MEMSLOT_CHECK(qkv.cols == (heads + 2 * groups) * d && dqkv.cols == qkv.cols &&
                dy.cols == heads * d);
  for (const AttentionSpan& span : spans) {
    MEMSLOT_CHECK(span.position == 0 && span.row + span.count <= qkv.rows);
  }
  const std::int64_t head_stride = qkv.rows * d;
  std::vector<float> dk(static_cast<std::size_t>(heads * head_stride)), dv(dk.size());
  cpu::parallel_tasks(info_.threads, heads * std::ssize(spans), [&](std::int64_t task) {
    const auto head = static_cast<int>(task % heads);
    HWY_DYNAMIC_DISPATCH(cpu::attention_task)
    (qkv, shape, spans[static_cast<std::size_t>(task / heads)], dy, head,
     dk.data() + head * head_stride, dv.data() + head * head_stride, dqkv);
  });
  const std::int64_t per = heads / groups;
  rows(qkv.rows, 2 * heads * d, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      float* to = dqkv.f32() + r * dqkv.stride + heads * d;
      for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t from = g * per * head_stride + r * d;
        cpu::reduce_row(dk.data() + from, head_stride, per, d, to + g * d);
        cpu::reduce_row(dv.data() + from, head_stride, per, d, to + (groups + g) * d);
      }
    }
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
