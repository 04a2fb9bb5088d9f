#pragma once
// The forward operations of Backend as plain double loops: what they mean, without any cleverness.
// Matrices are dense row-major vectors.
//
// Threads: pure functions.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "generator/kernels/activations.h"

namespace memslot::reference {

using Values = std::vector<double>;

struct Size {
  std::size_t rows = 0, cols = 0;
};

// y[M,N] = x[M,K] w[N,K]^T + bias[N] + y0[M,N]; bias and y0 may be empty.
inline Values linear(const Values& x, const Values& w, const Values& bias, const Values& y0,
                     std::size_t m, std::size_t k, std::size_t n) {
  Values y(m * n);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double sum = bias.empty() ? 0.0 : bias[j];
      for (std::size_t c = 0; c < k; ++c) sum += x[i * k + c] * w[j * k + c];
      y[i * n + j] = sum + (y0.empty() ? 0.0 : y0[i * n + j]);
    }
  }
  return y;
}

inline Values rms_norm(const Values& x, const Values& weight, double eps, Size size) {
  Values y(x.size());
  for (std::size_t r = 0; r < size.rows; ++r) {
    double squares = 0;
    for (std::size_t c = 0; c < size.cols; ++c)
      squares += x[r * size.cols + c] * x[r * size.cols + c];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(size.cols) + eps);
    for (std::size_t c = 0; c < size.cols; ++c)
      y[r * size.cols + c] = x[r * size.cols + c] * scale * weight[c];
  }
  return y;
}

inline Values layer_norm(const Values& x, const Values& weight, const Values& bias, double eps,
                         Size size) {
  Values y(x.size());
  const auto n = static_cast<double>(size.cols);
  for (std::size_t r = 0; r < size.rows; ++r) {
    const double* row = x.data() + r * size.cols;
    double mean = 0, variance = 0;
    for (std::size_t c = 0; c < size.cols; ++c) mean += row[c] / n;
    for (std::size_t c = 0; c < size.cols; ++c) variance += (row[c] - mean) * (row[c] - mean) / n;
    const double scale = 1 / std::sqrt(variance + eps);
    for (std::size_t c = 0; c < size.cols; ++c)
      y[r * size.cols + c] = (row[c] - mean) * scale * weight[c] + bias[c];
  }
  return y;
}

// gate_up is [rows, 2 cols].
inline Values silu_mul(const Values& gate_up, Size size) {
  Values y(size.rows * size.cols);
  for (std::size_t r = 0; r < size.rows; ++r) {
    for (std::size_t c = 0; c < size.cols; ++c) {
      const double gate = gate_up[r * 2 * size.cols + c],
                   up = gate_up[r * 2 * size.cols + size.cols + c];
      y[r * size.cols + c] = kernels::silu(gate) * up;
    }
  }
  return y;
}

// Half rotation of one head's d values at a position.
inline void rotate(double* head, std::size_t d, double theta, double position) {
  for (std::size_t i = 0; i < d / 2; ++i) {
    const double angle =
        position * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
    const double a = head[i], b = head[i + d / 2];
    head[i] = a * std::cos(angle) - b * std::sin(angle);
    head[i + d / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
}

struct AttentionCase {
  std::size_t heads = 0, kv_heads = 0, d = 0;
  std::size_t row_width() const { return (heads + 2 * kv_heads) * d; }
};

// One sequence from position 0: rows of q, k, v (already rotated), every row sees itself and
// before.
inline Values attention(const Values& qkv, const AttentionCase& c, std::size_t rows) {
  Values y(rows * c.heads * c.d);
  const std::size_t width = c.row_width(), group = c.heads / c.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(c.d));
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t h = 0; h < c.heads; ++h) {
      const double* q = qkv.data() + r * width + h * c.d;
      const std::size_t k_at = (c.heads + h / group) * c.d, v_at = k_at + c.kv_heads * c.d;
      Values weight(r + 1);
      for (std::size_t p = 0; p <= r; ++p) {
        double dot = 0;
        for (std::size_t i = 0; i < c.d; ++i) dot += q[i] * qkv[p * width + k_at + i];
        weight[p] = dot * scale;
      }
      const double top = *std::max_element(weight.begin(), weight.end());
      double sum = 0;
      for (auto& w : weight) sum += w = std::exp(w - top);
      for (std::size_t p = 0; p <= r; ++p) {
        for (std::size_t i = 0; i < c.d; ++i) {
          y[(r * c.heads + h) * c.d + i] += weight[p] / sum * qkv[p * width + v_at + i];
        }
      }
    }
  }
  return y;
}

struct TokenLoss {
  double nll = 0, entropy = 0;
  std::int32_t argmax = 0;
};

inline TokenLoss token_loss(std::span<const double> logits, std::int32_t target) {
  const auto best = std::max_element(logits.begin(), logits.end());
  double sum = 0, weighted = 0;
  for (const double x : logits)
    sum += std::exp(x - *best), weighted += (x - *best) * std::exp(x - *best);
  TokenLoss out;
  out.argmax = static_cast<std::int32_t>(best - logits.begin());
  out.entropy = std::log(sum) - weighted / sum;
  if (target >= 0) out.nll = std::log(sum) - (logits[static_cast<std::size_t>(target)] - *best);
  return out;
}

}  // namespace memslot::reference
