#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/delta_rule.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>
#include <vector>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// One token of one head. s [K][V]; u: V values of scratch.
//   p = S^T k; u = beta (v - p); S += k u^T; o = S^T (scale q)
// Sums run over K in order, whatever V is: the bits are those of one token at a time.
HWY_INLINE void delta_token(const float* q, const float* k, const float* v, float beta, float scale,
                            std::size_t keys, std::size_t values, float* s, float* u, float* o) {
  const DF d;
  for_vectors(values, [&](std::size_t i, std::size_t count) {
    VF predicted = hn::Zero(d);
    for (std::size_t j = 0; j < keys; ++j) {
      const VF row = load_part(d, s + j * values + i, count);
      predicted = hn::MulAdd(row, hn::Set(d, k[j]), predicted);
    }
    const VF error = hn::Sub(load_part(d, v + i, count), predicted);
    store_part(d, hn::Mul(hn::Set(d, beta), error), u + i, count);
  });
  for_vectors(values, [&](std::size_t i, std::size_t count) {
    const VF write = load_part(d, u + i, count);
    VF read = hn::Zero(d);
    for (std::size_t j = 0; j < keys; ++j) {
      float* cell = s + j * values + i;
      const VF row = hn::MulAdd(hn::Set(d, k[j]), write, load_part(d, cell, count));
      store_part(d, row, cell, count);
      read = hn::MulAdd(row, hn::Set(d, scale * q[j]), read);
    }
    store_part(d, read, o + i, count);
  });
}

void delta_head(const ConstMatrix& q, const ConstMatrix& k, const ConstMatrix& v,
                const ConstMatrix& beta, int heads, int head, float* state, const Matrix& o) {
  const auto keys = static_cast<std::size_t>(q.cols / heads);
  const auto values = static_cast<std::size_t>(v.cols / heads);
  const auto h = static_cast<std::size_t>(head);
  const float scale = 1.0f / std::sqrt(static_cast<float>(keys));
  std::vector<float> u(values);
  for (std::int64_t t = 0; t < q.rows; ++t) {
    delta_token(q.f32() + t * q.stride + h * keys, k.f32() + t * k.stride + h * keys,
                v.f32() + t * v.stride + h * values, beta.f32()[t * beta.stride + head], scale,
                keys, values, state + h * keys * values, u.data(),
                o.f32() + t * o.stride + h * values);
  }
}

// Channels [first, last) over all rows; window holds the last four inputs, oldest first.
void conv_channels(const ConstMatrix& x, const float* weight, float* state, const Matrix& y,
                   std::int64_t first, std::int64_t last) {
  for (std::int64_t c = first; c < last; ++c) {
    const float* w = weight + 4 * c;
    float* window = state + 4 * c;
    for (std::int64_t t = 0; t < x.rows; ++t) {
      for (int j = 0; j < 3; ++j) window[j] = window[j + 1];
      window[3] = x.f32()[t * x.stride + c];
      const float sum = w[0] * window[0] + w[1] * window[1] + w[2] * window[2] + w[3] * window[3];
      y.f32()[t * y.stride + c] = sum / (1.0f + std::exp(-sum));
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(delta_head);
HWY_EXPORT(conv_channels);
}  // namespace cpu

void CpuBackend::delta_rule(ConstMatrix q, ConstMatrix k, ConstMatrix v, ConstMatrix beta,
                            int heads, float* state, Matrix o) {
  MEMSLOT_CHECK(heads > 0 && q.cols % heads == 0 && v.cols % heads == 0 && k.cols == q.cols);
  MEMSLOT_CHECK(beta.cols == heads && o.cols == v.cols && o.rows == q.rows);
  MEMSLOT_CHECK(k.rows == q.rows && v.rows == q.rows && beta.rows == q.rows);
  const std::int64_t cost = 4 * q.rows * (q.cols / heads) * (v.cols / heads);
  rows(heads, cost, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t head = first; head < last; ++head) {
      HWY_DYNAMIC_DISPATCH(cpu::delta_head)
      (q, k, v, beta, heads, static_cast<int>(head), state, o);
    }
  });
}

void CpuBackend::causal_conv_silu(ConstMatrix x, const float* weight, float* state, Matrix y) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && y.dtype == DType::kF32);
  MEMSLOT_CHECK(x.rows == y.rows && x.cols == y.cols);
  rows(x.cols, 32 * x.rows, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::conv_channels)(x, weight, state, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
