#pragma once
// A thread for work that steps must not wait for: reading a whole bank, a backup, purging.
//
// Operation:   submit() queues `work`; what it returns runs later on the owner's thread, by
//              run_completions(), after `wake` was called.
// Concurrency: submit(), run_completions() on the owner's thread.
// Limits:      kMaxQueued; over it kOverloaded.
// Lifecycle:   the destructor drops what has not begun and waits for what has; long work should
//              look at stopping() now and then.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "shared/base/error.h"

namespace memslot {

class Worker {
 public:
  using Completion = std::function<void()>;
  using Work = std::function<Completion()>;
  static constexpr std::size_t kMaxQueued = 256;

  explicit Worker(std::function<void()> wake);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Status submit(Work work);
  void run_completions();
  std::size_t waiting() const;  // any thread
  bool stopping() const { return stopping_; }
  void begin_stop() { stopping_ = true; }
  // Drops what has not begun and waits for what has; its completions can still be run.
  void finish();

 private:
  void loop();

  const std::function<void()> wake_;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> queued_;           // guarded by mutex_
  std::deque<Completion> completed_;  // guarded by mutex_
  bool stop_ = false;                 // guarded by mutex_
  std::thread thread_;
};

}  // namespace memslot
