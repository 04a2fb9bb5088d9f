#pragma once
// Choosing the next token from logits.
//
//   p_i = softmax(logits)_i                        the full distribution (temperature 1)
//   greedy (temperature 0):  argmax, ties -> lowest id
//   otherwise: q = softmax(logits / temperature); keep the top_k most likely (ties -> lowest id),
//   of these the shortest prefix by falling probability whose mass reaches top_p (at least one);
//   renormalise; draw by inverse CDF with u = uniform01(seed, stream, position), in that order, or
//   by rising id where neither cut is on.
//
// A draw depends on nothing but its arguments, so it can be repeated after a restart.
// Sums are f64, in a fixed order.
//
// Errors:  kInvalidArgument for settings outside their bounds or an empty logits span;
//          kCorruption for a NaN or +infinity among the logits, or all of them -infinity.
// Threads: pure functions.
#include <cstdint>
#include <span>

#include "shared/base/error.h"

namespace memslot {

struct SamplingSettings {
  double temperature = 0.0;  // >= 0, finite; 0 is greedy
  int top_k = 0;             // >= 0; 0 is off
  double top_p = 1.0;        // in (0, 1]; 1 is off
  std::uint64_t seed = 0;
};

Status check_sampling(const SamplingSettings& settings);

struct Sampled {
  std::int32_t token = 0;
  double log_prob = 0;  // log p_token under the full distribution, nats, whatever the settings
  double entropy = 0;   // of the full distribution, nats
};

// `stream` tells sessions apart, `position` the tokens of one session.
Result<Sampled> sample(std::span<const float> logits, const SamplingSettings& settings,
                       std::uint64_t stream, std::uint64_t position);

// The same figures for a token that is given (reading, scoring).
// kInvalidArgument: token outside the logits.
Result<Sampled> score(std::span<const float> logits, std::int32_t token);

}  // namespace memslot
