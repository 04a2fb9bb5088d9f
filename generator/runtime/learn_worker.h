#pragma once
// Takes learn jobs from the controller, one at a time, and sends back what was learned.
//
// Operation:   assign() queues a job; while it waits, runs, and its result is on its way, progress
//              goes to the controller at least once a second, which renews its lease. The result
//              goes through the outbox until the controller answers; a lease that was fenced off
//              meanwhile is only logged.
//              The same job with a newer lease, while the old one still runs here, takes over the
//              lease: nothing is learned twice. Unless the head moved: then the old one is
//              cancelled, and the new one waits its turn. A cancelled job ends at the learner's
//              next report; what cancels an older lease of it is ignored. Kind `delta` is not
//              trained: see read_through.h.
// Concurrency: any thread.
// Limits:      kMaxQueued jobs wait; more are answered with LearnFailed kOverloaded.
// Lifecycle:   start(), stop(): cancels what runs; the controller assigns it again after its lease.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "generator/learn/learner.h"
#include "generator/runtime/engine.h"
#include "generator/runtime/outer_parameters.h"
#include "generator/runtime/read_through.h"
#include "shared/base/metrics.h"

namespace memslot {

class LearnWorker {
 public:
  static constexpr std::size_t kMaxQueued = 16;
  struct Counters {
    std::size_t queued = 0;
    std::uint64_t learned = 0, failed = 0, fenced = 0;
    std::size_t workspace_bytes = 0;
  };

  // `learner` null: no tokenizer, so nothing can be learned.
  LearnWorker(Engine& engine, std::unique_ptr<Learner> learner, OuterParameters& outer);
  ~LearnWorker();
  void start();
  void stop();

  void assign(wire::AssignLearn job);
  void cancel(const wire::CancelLearn& job);
  Counters counters() const;
  // Between two training steps of a job; whole jobs that ended well, and others.
  struct Times {
    metrics::Histogram step{metrics::kLongTimes}, learned{metrics::kLongTimes},
        failed{metrics::kLongTimes};
  };
  const Times& times() const { return times_; }

  // Learns on the calling thread, after the job that runs (for measurements); stores nothing.
  Result<LearnOutcome> learn_now(const LearnRequest& request,
                                 const std::function<bool(const LearnProgressReport&)>& progress);

 private:
  struct Deliveries;
  void loop();
  void pulse();
  void release_workspace();
  void work(const wire::AssignLearn& job);
  Result<LearnOutcome> learn(const wire::AssignLearn& job);
  Result<LearnOutcome> train(const wire::AssignLearn& job, const LearnConfig& config);
  bool report(const LearnProgressReport& progress);
  void send(const wire::AssignLearn& job, Result<LearnOutcome> outcome);

  Engine& engine_;
  std::mutex learner_mutex_;  // held while learning; taken before mutex_
  std::unique_ptr<Learner> learner_;
  std::optional<ReadThrough> through_;  // where there is a learner

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<wire::AssignLearn> queue_;
  // Shared with the results that wait in the outbox: one may be answered after the worker is gone.
  std::shared_ptr<Deliveries> deliveries_;
  wire::LearnProgress running_;   // job empty: none
  std::string running_expected_;  // the head that it starts from
  bool cancelled_ = false;        // the running one
  bool stopping_ = false;
  std::size_t workspace_bytes_ = 0;
  Times times_;
  TimePoint last_step_{};  // when the running job's last training step ended; the learner's thread
  std::thread thread_, pulse_;
};

}  // namespace memslot
