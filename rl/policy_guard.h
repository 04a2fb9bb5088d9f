#pragma once
// Whether a new policy is better than the one that acts, from what was seen and not from hope:
// off-policy evaluation on logged decisions of teacher-forced steps that no training saw.
//
//   w_t = min(c, pi(a_t | s_t) / mu(a_t | s_t))               mu: the policy that decided step t
//   V(pi) = sum_t w_t r_t / sum_t w_t                         nats per token
//
// the self-normalised importance estimate (Swaminathan and Joachims 2015, "The self-normalized
// estimator for counterfactual learning"), capped as in Ionides 2008 ("Truncated importance
// sampling"). Of each step only its own reward counts: what a choice does to later steps (a swap
// cost, the summary's window) is left out.
//
//   d_t = w_t/mean(w) (r_t - V) of one policy minus the same of the other
//   se^2 = E/(E-1) sum over the E episodes of (sum of d_t in it)^2 / n^2
//                                                             steps of an episode go together
//
// Threads: pure functions.
#include <cstdint>
#include <span>

#include "shared/base/error.h"

namespace memslot {

struct LoggedStep {
  std::uint64_t episode = 0;
  float reward = 0;    // net gain minus swap cost, nats per token
  float log_mu = 0;    // of the action taken, under the policy that took it
  float log_good = 0;  // ... under the policy that acts now
  float log_new = 0;   // ... under the one that would replace it
};

struct PolicyComparison {
  double value_good = 0, value_new = 0;  // nats per token
  double standard_error = 0;             // of their difference
  double effective_steps = 0;            // (sum w)^2 / sum w^2, the smaller of the two policies'
  std::size_t steps = 0, episodes = 0;
  double difference() const { return value_new - value_good; }
  // Whoever looks again and again will once see noise of two standard errors: three are asked for.
  bool better() const { return difference() > 3 * standard_error && difference() > 0; }
  // A one-sided test at 5 %: caution may be wrong now and then.
  bool worse() const { return difference() < -1.645 * standard_error && difference() < 0; }
};

// Steps whose reward or log_mu is not finite, or whose log-probabilities are none, are left out. A
// policy that takes its best action only has log-probability 0 or -infinity. `cap` is c.
PolicyComparison compare_policies(std::span<const LoggedStep> steps, double cap = 10);

}  // namespace memslot
