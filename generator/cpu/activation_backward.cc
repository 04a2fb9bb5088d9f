#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/activation_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "generator/kernels/activations.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// 1 / (1 + exp(-x)); the clamp keeps the exponential finite and changes nothing that f32 can show.
HWY_INLINE VF sigmoid_of(DF d, VF x) {
  const VF one = hn::Set(d, 1.0f);
  const VF e = hn::Exp(d, hn::Neg(hn::Max(x, hn::Set(d, -87.0f))));
  return hn::Div(one, hn::Add(one, e));
}

// gate and up: the row's halves; dgate, dup: where their gradients go.
template <class In, class Out>
void silu_mul_backward_row(const float* gate, const float* up, const In* dy, Out* dgate, Out* dup,
                           std::size_t n) {
  const DF d;
  const VF one = hn::Set(d, 1.0f);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const VF g = load_part(d, gate + i, count);
    const VF u = load_part(d, up + i, count);
    const VF grad = load_part(d, dy + i, count);
    const VF s = sigmoid_of(d, g);
    const VF silu = hn::Mul(g, s);
    const VF slope = hn::Mul(s, hn::Add(one, hn::Sub(g, silu)));  // s (1 + g (1 - s))
    store_part(d, hn::Mul(hn::Mul(grad, u), slope), dgate + i, count);
    store_part(d, hn::Mul(grad, silu), dup + i, count);
  });
}

template <class In, class Out>
void gelu_backward_row(const float* x, const In* dy, Out* dx, std::size_t n) {
  const DF d;
  const VF one = hn::Set(d, 1.0f), half = hn::Set(d, 0.5f);
  const VF scale = hn::Set(d, kernels::kGeluScale), cubic = hn::Set(d, kernels::kGeluCubic);
  const VF cubic3 = hn::Set(d, 3.0f * kernels::kGeluCubic);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const VF v = load_part(d, x + i, count);
    const VF v2 = hn::Mul(v, v);
    const VF t = hn::Tanh(d, hn::Mul(scale, hn::Add(v, hn::Mul(cubic, hn::Mul(v2, v)))));
    const VF inner = hn::Mul(scale, hn::Add(one, hn::Mul(cubic3, v2)));
    const VF curved = hn::Mul(hn::Mul(hn::Mul(half, v), hn::Sub(one, hn::Mul(t, t))), inner);
    const VF slope = hn::Add(hn::Mul(half, hn::Add(one, t)), curved);
    store_part(d, hn::Mul(slope, load_part(d, dy + i, count)), dx + i, count);
  });
}

template <class In, class Out>
void silu_rows(const ConstMatrix& gate_up, const In* dy, std::int64_t dy_stride, Out* out,
               std::int64_t stride, std::int64_t first, std::int64_t last) {
  const std::int64_t f = gate_up.cols / 2;
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = gate_up.f32() + r * gate_up.stride;
    silu_mul_backward_row(in, in + f, dy + r * dy_stride, out + r * stride, out + r * stride + f,
                          static_cast<std::size_t>(f));
  }
}

void silu_mul_backward_rows(const ConstMatrix& gate_up, const ConstMatrix& dy, const Matrix& out,
                            std::int64_t first, std::int64_t last) {
  if (dy.dtype == DType::kF32 && out.dtype == DType::kF32) {
    silu_rows(gate_up, dy.f32(), dy.stride, out.f32(), out.stride, first, last);
  } else if (dy.dtype == DType::kF32) {
    silu_rows(gate_up, dy.f32(), dy.stride, out.bf16(), out.stride, first, last);
  } else if (out.dtype == DType::kF32) {
    silu_rows(gate_up, dy.bf16(), dy.stride, out.f32(), out.stride, first, last);
  } else {
    silu_rows(gate_up, dy.bf16(), dy.stride, out.bf16(), out.stride, first, last);
  }
}

void gelu_backward_rows(const ConstMatrix& x, const ConstMatrix& dy, const Matrix& dx,
                        std::int64_t first, std::int64_t last) {
  const auto n = static_cast<std::size_t>(x.cols);
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = x.f32() + r * x.stride;
    const std::int64_t from = r * dy.stride, to = r * dx.stride;
    if (dy.dtype == DType::kF32 && dx.dtype == DType::kF32) {
      gelu_backward_row(in, dy.f32() + from, dx.f32() + to, n);
    } else if (dy.dtype == DType::kF32) {
      gelu_backward_row(in, dy.f32() + from, dx.bf16() + to, n);
    } else if (dx.dtype == DType::kF32) {
      gelu_backward_row(in, dy.bf16() + from, dx.f32() + to, n);
    } else {
      gelu_backward_row(in, dy.bf16() + from, dx.bf16() + to, n);
    }
  }
}

void sigmoid_rows(const ConstMatrix& x, float scale, const Matrix& y, std::int64_t first,
                  std::int64_t last) {
  const DF d;
  for (std::int64_t r = first; r < last; ++r) {
    const float* in = x.f32() + r * x.stride;
    float* out = y.f32() + r * y.stride;
    for_vectors(static_cast<std::size_t>(x.cols), [&](std::size_t i, std::size_t count) {
      const VF v = sigmoid_of(d, load_part(d, in + i, count));
      store_part(d, hn::Mul(v, hn::Set(d, scale)), out + i, count);
    });
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(silu_mul_backward_rows);
HWY_EXPORT(gelu_backward_rows);
HWY_EXPORT(sigmoid_rows);
}  // namespace cpu

void CpuBackend::silu_mul_backward(ConstMatrix gate_up, ConstMatrix dy, Matrix dgate_up) {
  MEMSLOT_CHECK(gate_up.dtype == DType::kF32 && gate_up.cols == 2 * dy.cols);
  MEMSLOT_CHECK(gate_up.rows == dy.rows && dgate_up.rows == dy.rows &&
                dgate_up.cols == gate_up.cols);
  rows(dy.rows, 16 * dy.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::silu_mul_backward_rows)(gate_up, dy, dgate_up, first, last);
  });
}

void CpuBackend::gelu_backward(ConstMatrix x, ConstMatrix dy, Matrix dx) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && x.rows == dy.rows && x.cols == dy.cols);
  MEMSLOT_CHECK(dx.rows == x.rows && dx.cols == x.cols);
  rows(x.rows, 16 * x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::gelu_backward_rows)(x, dy, dx, first, last);
  });
}

void CpuBackend::sigmoid(ConstMatrix x, float scale, Matrix y) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && y.dtype == DType::kF32);
  MEMSLOT_CHECK(x.rows == y.rows && x.cols == y.cols);
  rows(x.rows, 8 * x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::sigmoid_rows)(x, scale, y, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
