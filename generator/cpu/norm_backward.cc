#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/norm_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

// With g = weight * dy and r the reciprocal root of the row's mean square (or variance):
//   rms_norm:    dx = r g - x r^3 mean(g x)
//   layer_norm:  dx = r (g - mean(g) - xhat mean(g xhat)), xhat = (x - mean(x)) r
HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

void rms_norm_backward_row(const float* x, const float* weight, float eps, const float* dy,
                           float* dx, std::size_t n, bool accumulate) {
  const DF d;
  const float squares = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const auto v = load_part(d, x + i, count);
    return hn::Mul(v, v);
  });
  const float dot = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const auto g = hn::Mul(load_part(d, weight + i, count), load_part(d, dy + i, count));
    return hn::Mul(g, load_part(d, x + i, count));
  });
  const float size = static_cast<float>(n);
  const float r = 1.0f / std::sqrt(squares / size + eps);
  const auto scale = hn::Set(d, r);
  const auto back = hn::Set(d, r * r * r * (dot / size));
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto g = hn::Mul(load_part(d, weight + i, count), load_part(d, dy + i, count));
    auto out = hn::Sub(hn::Mul(g, scale), hn::Mul(load_part(d, x + i, count), back));
    if (accumulate) out = hn::Add(out, load_part(d, dx + i, count));
    store_part(d, out, dx + i, count);
  });
}

void layer_norm_backward_row(const float* x, const float* weight, float eps, const float* dy,
                             float* dx, std::size_t n, bool accumulate) {
  const DF d;
  const float size = static_cast<float>(n);
  const float mean =
      sum_terms(n, [&](std::size_t i, std::size_t count) { return load_part(d, x + i, count); }) /
      size;
  const auto vmean = hn::Set(d, mean);
  const auto centred = [&](std::size_t i, std::size_t count) {
    const auto v = hn::Sub(load_part(d, x + i, count), vmean);
    return hn::IfThenElseZero(hn::FirstN(d, count), v);
  };
  const auto gradient = [&](std::size_t i, std::size_t count) {
    return hn::Mul(load_part(d, weight + i, count), load_part(d, dy + i, count));
  };
  const float squares = sum_terms(n, [&](std::size_t i, std::size_t count) {
    const auto v = centred(i, count);
    return hn::Mul(v, v);
  });
  const float r = 1.0f / std::sqrt(squares / size + eps);
  const float g_mean = sum_terms(n, gradient) / size;
  const float g_dot = sum_terms(n, [&](std::size_t i, std::size_t count) {
    return hn::Mul(gradient(i, count), centred(i, count));
  });
  const auto scale = hn::Set(d, r);
  const auto shift = hn::Set(d, g_mean);
  const auto back = hn::Set(d, r * r * (g_dot / size));
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    const auto inner =
        hn::Sub(hn::Sub(gradient(i, count), shift), hn::Mul(centred(i, count), back));
    auto out = hn::Mul(inner, scale);
    if (accumulate) out = hn::Add(out, load_part(d, dx + i, count));
    store_part(d, out, dx + i, count);
  });
}

void rms_norm_backward_rows(const ConstMatrix& x, const float* weight, float eps,
                            const ConstMatrix& dy, const Matrix& dx, bool accumulate,
                            std::int64_t first, std::int64_t last) {
  for (std::int64_t r = first; r < last; ++r) {
    rms_norm_backward_row(x.f32() + r * x.stride, weight, eps, dy.f32() + r * dy.stride,
                          dx.f32() + r * dx.stride, static_cast<std::size_t>(x.cols), accumulate);
  }
}

void layer_norm_backward_rows(const ConstMatrix& x, const float* weight, float eps,
                              const ConstMatrix& dy, const Matrix& dx, bool accumulate,
                              std::int64_t first, std::int64_t last) {
  for (std::int64_t r = first; r < last; ++r) {
    layer_norm_backward_row(x.f32() + r * x.stride, weight, eps, dy.f32() + r * dy.stride,
                            dx.f32() + r * dx.stride, static_cast<std::size_t>(x.cols), accumulate);
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(rms_norm_backward_rows);
HWY_EXPORT(layer_norm_backward_rows);

namespace {
void check_shapes(const ConstMatrix& x, const ConstMatrix& dy, const Matrix& dx) {
  MEMSLOT_CHECK(x.dtype == DType::kF32 && dy.dtype == DType::kF32 && dx.dtype == DType::kF32);
  MEMSLOT_CHECK(x.rows == dy.rows && x.rows == dx.rows && x.cols == dy.cols && x.cols == dx.cols);
}
}  // namespace
}  // namespace cpu

void CpuBackend::rms_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy,
                                   Matrix dx, bool accumulate) {
  cpu::check_shapes(x, dy, dx);
  rows(x.rows, 3 * x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::rms_norm_backward_rows)
    (x, weight, eps, dy, dx, accumulate, first, last);
  });
}

void CpuBackend::layer_norm_backward(ConstMatrix x, const float* weight, float eps, ConstMatrix dy,
                                     Matrix dx, bool accumulate) {
  cpu::check_shapes(x, dy, dx);
  rows(x.rows, 4 * x.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::layer_norm_backward_rows)
    (x, weight, eps, dy, dx, accumulate, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
