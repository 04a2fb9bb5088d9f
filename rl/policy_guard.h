#pragma once
// Whether another policy is better than the one that acts, from what was seen and not from hope:
// off-policy evaluation on teacher-forced steps that no training saw, all of them drawn by the
// policy that acts, so that its probabilities mu of every candidate are known.
//
//   w_t = min(c, pi(a_t | s_t) / mu(a_t | s_t))          truncated importance weight (Ionides 2008)
//   u_t = sum_a max(0, pi(a | s_t) - c mu(a | s_t))      the share of pi that the log cannot judge
//   d_t = (w_t - w'_t) (r_t - b) - u_t (b - low) - u'_t (high - b)
//                                                        pi minus pi', nats per token
//   b = mean r_t,  low, high = means of the lowest and the highest tenth
//
// pi' is what acts (w' = 1, u' = 0 where it is drawn from). Paired: where both policies agree d_t
// is 0, whatever the reward's noise. What the log cannot judge is taken to be as bad as the worst
// steps: a self-normalised estimate would leave it out, and so call a policy good for the few of
// its actions that were ever tried (pessimism as in Strehl et al. 2010, "Learning from logged
// implicit exploration data"). Of each step only its own reward counts: what a choice does to later
// steps (a swap cost, the summary's window) is left out.
//
//   D = mean d_t;   se^2 = E/(E-1) sum over the E episodes of (sum of d_t - D in it)^2 / n^2
//   bounds: D -+ t(alpha, E-1) se, Student's              steps of an episode go together
//
// Threads: one at a time.
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

// A held-out step, drawn by the policy that acts.
struct LoggedStep {
  std::uint64_t episode = 0;
  float reward = 0;                  // net gain minus swap cost, nats per token
  std::uint32_t action = 0;          // of the K candidates
  std::vector<float> acting, other;  // (K) log-probabilities: of what acts, of the other policy
};

struct PolicyComparison {
  double value_good = 0, value_new = 0;  // nats per token: what acts, the other; new = good + D
  double standard_error = 0;   // of D; 0 for less than two episodes, where the bounds are infinite
  double effective_steps = 0;  // (sum w)^2 / sum w^2 of the other policy
  double unjudged = 0;         // mean u_t
  double judged_difference = 0;  // mean of (w_t - w'_t)(r_t - b): what the log can tell
  std::size_t steps = 0, episodes = 0;
  double difference() const { return value_new - value_good; }
  // One-sided bounds at error rate `alpha`: of the difference, and from above of what the log can
  // tell of it (what it cannot may be anything).
  double lower(double alpha) const;
  double upper(double alpha) const;
};

enum class ActsBy { kDrawing, kBestAction };  // how both policies would act; the log is drawn

// Steps whose reward is not finite, or whose probabilities are none, are left out. `cap` is c.
PolicyComparison compare_policies(std::span<const LoggedStep> steps, ActsBy by, double cap = 10);

// t with P(T > t) = alpha for Student's T of `df` degrees of freedom; infinite for df = 0.
double student_quantile(double alpha, std::size_t df);

struct GuardOptions {
  std::uint32_t least_steps = 64;     // effective ones, for any verdict but a revert
  std::uint32_t least_episodes = 16;  // fewer give no standard error to trust
  double alpha = 0.05;                // of all looks at one policy's successors together
  double set_back_alpha = 0.05;       // of one look: caution may be wrong now and then
  double most_unjudged = 0.15;        // of a learner's policy: one further off cannot be told about
  double tolerance = 0.02;            // nats per token, where the best action is taken
  std::uint32_t probation = 64;       // measured episodes after a publication
  double growth = 1.25;               // of what was seen, between looks that could publish
  std::uint32_t recent = 16;          // episodes in which a change of the world shows
};

// Decides, from comparisons and from what was earned. The learner (online_learner.h) brings both.
//
//   publish   the other is better by the lower bound at alpha / (k (k + 1)) at the k-th look since
//             the last publication (they sum up to alpha: however often it looks, a policy that is
//             not better is published with probability alpha at most, as far as Student's bound
//             holds), where a look counts, and can publish, once `growth` times as many episodes
//             were measured as at the one before: looks that bring little new would use alpha up;
//             and where the best action is taken its lower bound at `set_back_alpha` is no
//             worse than -tolerance
//   set back  the other is worse by the upper bound, on the steps that the log can tell of
//   revert    the policy before is better than the one that acts, by the same bound on the steps
//             held out since; or, in its probation, what acts earns less than the one before did
//             (all measured episodes of either, Welch's bound, the same alpha), unless the one
//             before would earn less still on the steps held out: then the world has changed
//   forget    what acts earns less in its `recent` newest episodes than in those before (Welch's
//             bound at alpha / (k (k + 1)), k-th look since the last change or publication; a look
//             every half of `recent`): the policy is the same, so the world is another, and what
//             was seen of the old one speaks against what is right in the new one
class PolicyGuard {
 public:
  enum class Verdict { kGoOn, kPublish, kSetBack };

  explicit PolicyGuard(GuardOptions options = {}) : options_(options) {}

  // An episode that the policy drew which acts: all that was measured, learned from or not. True:
  // forget all but the `recent` newest ones.
  bool earned(double reward_sum, std::size_t steps);
  // The learner's policy beside the one that acts.
  Verdict judge(const PolicyComparison& drawn, const PolicyComparison& best);
  // The policy before (as the other) beside the one that acts. REQUIRES: has_before().
  bool reverts(const PolicyComparison& before);
  bool has_before() const { return has_before_; }
  // The judged policy now acts; or the one before does again.
  void published();
  void reverted();

  double alpha_now() const;  // of the next look that could publish
 private:
  struct Episode {
    double reward = 0;
    double steps = 0;
  };
  using Era = std::deque<Episode>;
  struct Mean {
    double value = 0, variance = 0;
    std::size_t episodes = 0;
  };
  static Mean mean_of(const Era& era, std::size_t from, std::size_t to);
  static double less_by(const Mean& now, const Mean& then, double alpha);
  bool enough(const PolicyComparison& seen) const {
    return seen.effective_steps >= options_.least_steps && seen.episodes >= options_.least_episodes;
  }
  bool earns_less() const;
  bool earns_less_lately();
  void begin_era();

  GuardOptions options_;
  double next_look_ = 0;  // in episodes since the publication, or change
  std::uint64_t looks_ = 0, looks_back_ = 0, looks_lately_ = 0;
  Era now_, before_;
  std::uint64_t episodes_ = 0;  // measured since the publication
  bool has_before_ = false;
};

}  // namespace memslot
