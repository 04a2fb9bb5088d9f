#pragma once
// What a session's decisions were worth: each is held until the next observation (or the close)
// tells what was active and what was gained.
//
//   reward = net gain - swap cost       nats per token; of a step that is read (teacher-forced)
//   net gain = 0 for base; for a memory the reported gain minus the generic gain, GenericGain
//
// A step trains only if the policy drew the action and that very memory was active because of the
// directive: what was pinned, kept after a missed deadline, did not load or came a step late
// (async) trains nothing. Steps of sampled text have no gain: they wait for feedback.
//
// Threads: one at a time (the session's).
#include <cstdint>
#include <deque>
#include <optional>

#include "rl/episode.h"
#include "shared/wire/messages_step.h"

namespace memslot {

// What a memory that has nothing to do with the text gains there (odd spelling, a corpus' manner):
//
//   g_n = g_(n-1) + (gain_n - g_(n-1)) / min(n + 64, 512),  g_0 that of the policy's training
//
// over teacher-forced steps whose active memory was no nearer to the text than to any other (cosine
// of the query with its mean key at most 0); at least 0. Kept in memory: it begins anew with the
// controller.
class GenericGain {
 public:
  explicit GenericGain(double prior = 0) : mean_(prior) {}
  void add(double gain);
  float value() const { return mean_ > 0 ? static_cast<float>(mean_) : 0.0f; }

 private:
  double mean_;
  std::uint64_t count_ = 0;
};

// Half a nat per token for full praise: what a memory that fits is worth (docs/performance.md).
inline constexpr float kFeedbackNats = 0.5f;

class EpisodeRecorder {
 public:
  static constexpr std::size_t kMeasuredSteps = 32;  // an episode of a text that goes on and on
  static constexpr std::size_t kWaitingSteps = 128;  // the newest that wait for feedback

  struct Decided {
    std::uint64_t at = 0;  // step
    EpisodeStep step;      // its reward is minus the swap cost
    MemoryRef chosen;      // id empty: base
    float mean_key = 0;    // of the chosen memory
    bool drawn = false;    // sampled from the policy, so that it can be learned from
  };
  void decided(Decided decision);
  // Step `observation.step` - 1 has run with `active`. `generic` learns, and is what a gain is
  // above of.
  void outcome(const wire::Observation& observation, const wire::ActiveMemory* active,
               GenericGain& generic);

  // A teacher-forced episode, once it is long enough; at the `end` whatever there is.
  std::optional<Episode> take_measured(bool end);
  // The steps that wait for feedback; none train: nullopt.
  std::optional<Episode> take_waiting();
  bool waiting() const { return !waiting_.empty(); }

 private:
  std::optional<Decided> pending_;
  Episode measured_;
  std::deque<EpisodeStep> waiting_;
};

}  // namespace memslot
