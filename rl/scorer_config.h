#pragma once
// The shape of the learned scorer and how it begins.
//
//   s_i = mlp([f_i, m_i]),   m_i = tau * (q^T (I + U^T V) k_i),   p = softmax(s)
//
// with f_i the candidate's row of features (F), q the whitened query and k_i the candidate's
// whitened mean key (R each; m_i = 0 where either is missing), U and V (rank, R), mlp = Linear(F +
// 1, hidden), tanh, Linear(hidden, hidden), tanh, Linear(hidden, 1). At the beginning U = 0: the
// match is the cosine that nearest-key search uses, times tau. So do the weights of features that
// only live sessions vary (features.h).
#include <cstdint>

namespace memslot {

struct ScorerConfig {
  std::uint32_t features = 0;  // F, of feature_count()
  std::uint32_t key_dim = 0;   // R
  std::uint32_t rank = 16;     // of the bilinear match
  std::uint32_t hidden = 64;
  friend bool operator==(const ScorerConfig&, const ScorerConfig&) = default;
};

}  // namespace memslot
