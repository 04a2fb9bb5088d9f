#pragma once
// Learns the scorer from episodes by REINFORCE (Williams 1992, "Simple statistical
// gradient-following algorithms for connectionist reinforcement learning").
//
//   G_t = sum_k gamma^k r_(t+k)                              discounted return (episode.h)
//   A_t = G_t - b_t                                          b_t: leave-one-out mean (RLOO), or
//                                                            V(s_t), fitted by (V - G)^2
//   w_t = min(c, pi(a_t | s_t) / mu(a_t | s_t))              importance ratio, no gradient; mu: the
//                                                            policy that acted (1 where it is pi)
//   L = - 1/N sum_t w_t A_t log pi(a_t | s_t)  -  beta 1/N sum_t H(pi(. | s_t))  [ + 1/2 1/N sum (V
//   - G)^2 ]
//
// over the N steps that train; beta decays as beta_0 * decay^update. Then the gradient is cut to
// clip_norm (L2 over all parameters; Pascanu et al. 2013) and Adam (Kingma and Ba 2015) steps. What
// is published is a running mean of the scorer's parameters over the updates (Polyak and Juditsky
// 1992, "Acceleration of stochastic approximation by averaging"), with little of the last ones'
// noise:
//
//   mean <- rho_n mean + (1 - rho_n) theta_n,  rho_n = min(rho, n / (n + 9)),  n = 1, 2, ...
//
// The value V(s) = value_mlp(mean and maximum over candidates of their feature rows) has parameters
// of its own and no effect on the scorer.
//
// Deterministic: with one thread the same seed and episodes give the same bits, also when learning
// is resumed from a checkpoint.
//
// Errors:  kInvalidArgument (episodes that do not fit, numbers that are not finite: nothing is
//          learned from the whole call), kMismatch (a checkpoint of another shape).
// Threads: one at a time; snapshots are immutable and free of the learner.
#include <memory>
#include <span>

#include "rl/checkpoint.h"
#include "rl/episode.h"
#include "rl/selection_policy.h"

namespace memslot {

enum class Baseline { kLeaveOneOut, kValue, kNone };

struct ReinforceOptions {
  float learning_rate = 2e-3f;
  float gamma = 0.5f;
  float entropy_bonus = 0.01f;   // beta_0, nats
  float entropy_decay = 0.995f;  // an update
  float clip_norm = 1.0f;
  float ratio_clip = 2.0f;  // c, at least 1
  float averaging = 0.0f;   // rho, below 1; 0: what is published is what acts
  Baseline baseline = Baseline::kLeaveOneOut;
  ScorerPrior prior{};
  std::uint64_t seed = 1;
  bool float64 = false;  // for tests of the gradient; checkpoints stay f32
};

struct UpdateReport {
  double loss = 0;           // of the policy, entropy bonus included
  double mean_return = 0;    // mean over episodes of the sum of rewards, undiscounted
  double mean_reward = 0;    // over steps, nats per token
  double entropy = 0;        // nats, mean over steps
  double gradient_norm = 0;  // before the cut
  double value_loss = 0;
  std::size_t steps = 0;  // that trained
};

class ReinforceLearner {
 public:
  static Result<std::unique_ptr<ReinforceLearner>> make(ScorerConfig scorer,
                                                        ReinforceOptions options);
  static Result<std::unique_ptr<ReinforceLearner>> resume(const Checkpoint& checkpoint,
                                                          ReinforceOptions options);
  // From a published policy: its scorer, a new optimizer and value baseline, updates counted on.
  // The checkpoint's seed is kept.
  static Result<std::unique_ptr<ReinforceLearner>> go_on_from(const Checkpoint& published,
                                                              ReinforceOptions options);
  virtual ~ReinforceLearner() = default;

  // One optimizer step. Episodes whose snapshot is not 0 count with their importance ratio.
  virtual Result<UpdateReport> update(std::span<const Rollouts> streams) = 0;
  // One optimizer step of cross-entropy towards each step's action: the warm start by imitation.
  virtual Result<UpdateReport> imitate(std::span<const Episode> episodes) = 0;

  // log pi(a | s) of every candidate of each step, under the present parameters. Actions are not
  // read.
  virtual Result<std::vector<std::vector<float>>> log_probs(
      std::span<const EpisodeStep> steps) const = 0;

  virtual const ScorerConfig& scorer() const = 0;
  virtual std::uint64_t updates() const = 0;
  // With the optimizer's state, to resume from; without it, to publish. Task, whitening, digest of
  // the configuration and notes are those of the checkpoint that it came from, if any.
  virtual Checkpoint checkpoint(bool with_optimizer) const = 0;

  // For tests of the gradient, in the order of the scorer's tensors: loss and its derivative at the
  // present parameters, nothing learned.
  virtual Result<double> loss(std::span<const Rollouts> streams) const = 0;
  virtual Result<std::vector<double>> gradient(std::span<const Rollouts> streams) const = 0;
  virtual std::vector<double> parameters() const = 0;
  virtual void set_parameters(std::span<const double> values) = 0;
};

// The policy of a checkpoint. Where the step explores, it samples with the counter-based number of
// (seed, session, step); otherwise the highest score wins, the first among equals. A step with a
// number that is not finite keeps what is active, and counts as a fault.
// kMismatch, kCorruption (tensors that do not fit the config).
Result<std::shared_ptr<const SelectionPolicy>> make_learned_policy(const Checkpoint& checkpoint);

}  // namespace memslot
