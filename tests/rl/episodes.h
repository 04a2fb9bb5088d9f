#pragma once
// Steps and episodes made of counter-based random numbers.
#include <cmath>

#include "rl/episode.h"
#include "rl/features.h"
#include "shared/base/rng.h"

namespace memslot::testing_support {

inline EpisodeStep random_step(std::uint64_t seed, std::uint32_t candidates,
                               std::uint32_t key_dim) {
  std::uint64_t at = 0;
  const auto number = [&] { return static_cast<float>(2 * uniform01(seed, 7, at++) - 1); };
  EpisodeStep step;
  step.candidates = candidates;
  for (std::uint32_t i = 0; i < candidates * feature_count(); ++i)
    step.features.push_back(number());
  for (std::uint32_t i = 0; i < key_dim; ++i) step.query.push_back(number());
  for (std::uint32_t i = 0; i < candidates * key_dim; ++i) step.keys.push_back(number());
  step.action = static_cast<std::uint32_t>(uniform_below(candidates, seed, 8, 0));
  step.reward = number();
  step.log_prob = -std::log(static_cast<float>(candidates));
  return step;
}

inline Episode random_episode(std::uint64_t seed, std::size_t steps, std::uint32_t key_dim) {
  Episode out;
  for (std::size_t t = 0; t < steps; ++t) {
    const auto k = static_cast<std::uint32_t>(1 + uniform_below(6, seed, 9, t));
    out.steps.push_back(random_step(seed * 1000 + t, k, key_dim));
  }
  return out;
}

}  // namespace memslot::testing_support
