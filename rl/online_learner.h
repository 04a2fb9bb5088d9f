#pragma once
// Learning while the pair runs: episodes of live sessions in, now and then a policy to publish or
// to go back to.
//
//   - Teacher-forced episodes (their reward is measured) train, but for every `hold_out`-th, which
//     only the guard sees. Episodes with feedback train and never are the guard's.
//   - The last `buffer` episodes that train are gone over several times: those of older policies
//     count with the clipped importance ratio of reinforce.h. One live session is one rollout, so
//     the baseline is the learned value.
//   - Every `publish_every` episodes the guard (policy_guard.h) compares the learner's policy with
//     the one that acts, on the newest `window` held-out steps which that one drew. Better: it is
//     proposed. Worse: the learner goes back to the one that acts. Neither, or too little seen: it
//     learns on. Nothing is proposed on feedback alone: what nobody measured cannot be told from
//     noise.
//   - A learner that has gone further from what acts than the log can tell (`most_unjudged`) goes
//     back to where it was at the last look: that policy can be judged, and be published first.
//   - What was published is compared again with its predecessor, on episodes since. If it is the
//     worse one, the predecessor is proposed again (a revert).
//   - Where what acts earns less than it did, the world has changed: the guard and the buffer keep
//     the newest episodes only.
//   - After a publication the guard begins anew, with steps that the new policy drew. Episodes of
//     sessions that began before train, but are not the guard's.
//
// Deterministic: the same episodes in the same order give the same proposals.
//
// Errors:  add(): kInvalidArgument (an episode that does not fit: nothing is learned from it).
// Threads: one at a time.
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "rl/policy_engine.h"
#include "rl/policy_guard.h"

namespace memslot {

struct OnlineOptions {
  std::uint32_t batch = 4;           // new episodes between updates
  std::uint32_t updates = 4;         // after each batch
  std::uint32_t drawn = 16;          // episodes of an update
  std::uint32_t buffer = 64;         // episodes
  std::uint32_t hold_out = 4;        // one of so many teacher-forced episodes is the guard's
  std::uint32_t publish_every = 16;  // episodes
  std::uint32_t window = 1024;       // steps that the guard looks at
  GuardOptions guard;
  ReinforceOptions reinforce = {.learning_rate = 5e-4f,
                                .gamma = 0.2f,
                                .entropy_bonus = 0.01f,
                                .entropy_decay = 1.0f,
                                .baseline = Baseline::kValue};
};

struct OnlineCounts {
  std::uint64_t episodes = 0, steps = 0;  // that trained
  std::uint64_t held_out = 0;             // episodes
  std::uint64_t refused = 0;              // episodes that did not fit
  std::uint64_t updates = 0, snapshots = 0, reverts = 0, set_back = 0;
  std::uint64_t shifts = 0;  // times that the world was seen to change
  double mean_return = 0;    // of the last updates' episodes, nats per token
  double entropy = 0;        // of the last update, nats
};

class OnlineLearner {
 public:
  struct Proposal {
    Checkpoint checkpoint;
    bool revert = false;
    PolicyComparison why;  // new: the proposed one; good: the one that acts
  };

  // Goes on from `acting`. Errors of the engine.
  static Result<std::unique_ptr<OnlineLearner>> make(const Checkpoint& acting, PolicyEngine engine,
                                                     OnlineOptions options = {});

  // `measured`: teacher-forced. The episode's steps name the log-probabilities under which they
  // were drawn.
  Result<std::optional<Proposal>> add(Episode episode, bool measured);
  // The proposal now acts.
  Status published(const Checkpoint& acting, bool revert);

  const OnlineCounts& counts() const { return counts_; }
  const std::optional<PolicyComparison>& last_look() const { return last_look_; }

 private:
  struct Held {
    std::uint64_t number = 0;
    EpisodeStep step;
    std::vector<float> acting;  // log-probabilities of the policy that acts
  };
  OnlineLearner(PolicyEngine engine, OnlineOptions options)
      : engine_(std::move(engine)), options_(options), guard_(options.guard) {}
  Status begin_at(const Checkpoint& acting);
  // Of every step's candidates, where the policy that acts drew all of the episode; else empty.
  Result<std::vector<std::vector<float>>> drawn_by_acting(const Episode& episode) const;
  void hold_out(Episode episode, std::vector<std::vector<float>> acting);
  void forget();
  Status learn();
  struct Compared {
    PolicyComparison drawn, best;
  };
  Result<Compared> beside_acting(const ReinforceLearner& other) const;
  Result<Compared> judgeable();
  Status set_back();
  Result<std::optional<Proposal>> look();

  PolicyEngine engine_;
  OnlineOptions options_;
  std::unique_ptr<ReinforceLearner> learner_, acting_, before_;  // before_: null until published
  std::deque<Episode> buffer_;                                   // newest last
  std::deque<Held> held_;
  PolicyGuard guard_;
  std::optional<Checkpoint> near_;  // the learner's at the last look, near enough to be judged
  std::uint64_t number_ = 0;        // of the next measured episode
  std::uint64_t since_learned_ = 0, since_look_ = 0, drawn_ = 0;
  OnlineCounts counts_;
  std::optional<PolicyComparison> last_look_;
};

}  // namespace memslot
