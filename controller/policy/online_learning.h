#pragma once
// Online learning beside the steps: a thread that takes finished episodes from a bounded queue,
// feeds them to the learner (rl/online_learner.h) and publishes what that proposes.
//
// Operation:   start() brings back the feedback that no published policy has learned from; offer()
//              from then on. `changed` is called, from the thread, after the head moved.
// Concurrency: offer(), view(), history() from any thread.
// Limits:      kMaxQueued episodes; above it the newest is dropped and counted. Feedback waits in
//              the bank besides.
// Lifecycle:   the destructor ends after the episode at hand; nothing published is lost.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "controller/policy/feedback_desk.h"
#include "controller/policy/policy_shelf.h"
#include "rl/online_learner.h"

namespace memslot {

struct LiveEpisode {
  Episode episode;
  bool measured = false;  // teacher-forced; else `feedback` names its record
  std::string space;      // of the snapshot that acted: whose keys these are
  std::string feedback;
};

struct LearningView {
  OnlineCounts counts;
  std::optional<PolicyComparison> last_look;
  std::uint64_t queued = 0, dropped = 0;
  std::uint64_t strange = 0;  // of another whitening than the policy that acts, or none does
};

// How learning stood at some time.
struct LearningSample {
  std::int64_t unix_ms = 0;
  double mean_reward = 0, entropy = 0;
  std::uint64_t episodes = 0, updates = 0;
  std::optional<PolicyComparison> look;
};

class OnlineLearning {
 public:
  static constexpr std::size_t kMaxQueued = 256;
  static constexpr std::size_t kMaxSamples = 720;  // an hour, where episodes keep coming
  static constexpr auto kSampleEvery = std::chrono::seconds(5);

  // All must outlive it.
  OnlineLearning(PolicyShelf& shelf, FeedbackDesk& desk, const Clock& clock, OnlineOptions options,
                 std::function<void()> changed);
  ~OnlineLearning();
  OnlineLearning(const OnlineLearning&) = delete;
  OnlineLearning& operator=(const OnlineLearning&) = delete;

  void start();
  bool offer(LiveEpisode episode);  // false: dropped
  LearningView view() const;
  std::vector<LearningSample> history() const;  // since the start, oldest first, thinned

 private:
  void loop();
  void take(LiveEpisode item);
  void sample();
  Status learn(LiveEpisode item);
  Status follow_head();
  Status publish(OnlineLearner::Proposal proposal);
  TimePoint soon() const;

  PolicyShelf& shelf_;
  FeedbackDesk& desk_;
  const Clock& clock_;
  const OnlineOptions options_;
  const std::function<void()> changed_;
  std::unique_ptr<OnlineLearner> learner_;  // the thread's
  std::string acting_, space_;              // the thread's: digests of policy and whitening
  OnlineCounts before_;                     // of learners that are gone
  std::vector<std::string> used_;           // feedback learned from, not in a published policy yet

  mutable std::mutex mutex_;
  std::condition_variable more_;
  std::deque<LiveEpisode> queue_;       // guarded by mutex_
  LearningView view_;                   // guarded by mutex_
  std::deque<LearningSample> samples_;  // guarded by mutex_
  bool stop_ = false;                   // guarded by mutex_
  std::thread thread_;
};

}  // namespace memslot
