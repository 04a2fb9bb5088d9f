#pragma once
// Activation functions and their constants, scalar.
//
//   silu(x) = x / (1 + exp(-x))
//   gelu_tanh(x) = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))     Hendrycks & Gimpel 2016
//
// Threads: pure functions.
#include <cmath>

namespace memslot::kernels {

inline constexpr float kGeluScale = 0.7978845608028654f;  // sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715f;

template <class T>
T sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

template <class T>
T silu(T x) {
  return x * sigmoid(x);
}

// d silu / dx = s + x s (1 - s), s = sigmoid(x).
template <class T>
T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s + x * s * (T{1} - s);
}

template <class T>
T gelu_tanh(T x) {
  const T u = T{kGeluScale} * (x + T{kGeluCubic} * x * x * x);
  return T{0.5} * x * (T{1} + std::tanh(u));
}

template <class T>
T gelu_tanh_derivative(T x) {
  const T t = std::tanh(T{kGeluScale} * (x + T{kGeluCubic} * x * x * x));
  const T inner = T{kGeluScale} * (T{1} + T{3} * T{kGeluCubic} * x * x);
  return T{0.5} * (T{1} + t) + T{0.5} * x * (T{1} - t * t) * inner;
}

}  // namespace memslot::kernels
