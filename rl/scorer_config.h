#pragma once
// The shape of the learned scorer and how it begins.
//
//   s_i = a . f_i + mlp([f_i, m_i]),   m_i = tau * (q^T (I + U^T V) k_i),   p = softmax(s)
//
// with f_i the candidate's row of features (F), q the reduced query and k_i the candidate's reduced
// mean key (R each, rl/whitening.h; m_i = 0 where either is missing), U and V (rank, R), mlp =
// Linear(F + 1, hidden), tanh, Linear(hidden, hidden), tanh, Linear(hidden, 1). At the beginning U
// = 0: the match is the mean key's cosine, times tau. So do a and the weights of features that only
// live sessions vary (features.h).
//
// With a prior the scorer begins as nearest key with a threshold instead of at random: a is
// `sharpness` at best_key and sharpness * threshold at is_base, and the last layer is zero.
#include <cstdint>

namespace memslot {

struct ScorerConfig {
  std::uint32_t features = 0;  // F, of feature_count()
  std::uint32_t key_dim = 0;   // R
  std::uint32_t rank = 16;     // of the bilinear match
  std::uint32_t hidden = 64;
  friend bool operator==(const ScorerConfig&, const ScorerConfig&) = default;
};

struct ScorerPrior {
  float sharpness = 0;  // a unit of cosine in logits; 0: no prior
  float threshold = 0;  // a cosine
};

}  // namespace memslot
