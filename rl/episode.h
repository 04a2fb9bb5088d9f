#pragma once
// What REINFORCE learns from: the steps of one session or of one simulated stream, in order.
//
// Threads: plain data; one at a time.
#include <cstdint>
#include <span>
#include <vector>

#include "rl/selection_policy.h"
#include "shared/base/error.h"

namespace memslot {

// One decision. K rows of F features (features.h) and, for the bilinear match, the whitened query
// (R) and a whitened key (R) for each candidate (zeros: none).
struct EpisodeStep {
  std::uint32_t candidates = 0;  // K
  std::vector<float> features;   // (K, F)
  std::vector<float> query;      // (R), or empty: none yet
  std::vector<float> keys;       // (K, R), or empty
  std::uint32_t action = 0;      // what was active during the step, and the policy's own choice
  float log_prob = 0;            // of the action, under the policy that took it
  float reward = 0;              // net gain minus swap cost, nats per token
  bool trains = true;            // false: something else decided (a pin, a missed deadline)
};

// What is known before the choice: features, query and keys as a learned policy sees them.
EpisodeStep step_of(const StepContext& context, std::span<const Candidate> candidates,
                    std::uint32_t key_dim);

struct Episode {
  std::uint64_t snapshot = 0;  // of the policy that acted; 0: the present one
  std::vector<EpisodeStep> steps;
};

// Several rollouts of one and the same stream: each step is the same place of the text.
using Rollouts = std::vector<Episode>;

// kInvalidArgument: sizes that do not fit, an action out of range, a number that is not finite.
Status check_step(const EpisodeStep& step, std::size_t at, std::uint32_t features,
                  std::uint32_t key_dim);
Status check_episode(const Episode& episode, std::uint32_t features, std::uint32_t key_dim);

// G_t = sum_k gamma^k r_(t+k).
std::vector<float> discounted_returns(const Episode& episode, float gamma);

// Leave-one-out baseline (RLOO; Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for
// free!"): for each rollout and step the mean return of the others at that step. Zero where there
// is no other one.
//   returns (N, T): rows may end early.
std::vector<std::vector<float>> leave_one_out(const std::vector<std::vector<float>>& returns);

}  // namespace memslot
