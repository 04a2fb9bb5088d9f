#include "controller/link/worker.h"

namespace memslot {

Worker::Worker(std::function<void()> wake) : wake_(std::move(wake)), thread_([this] { loop(); }) {}

Worker::~Worker() { finish(); }

void Worker::finish() {
  stopping_ = true;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status Worker::submit(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (queued_.size() >= kMaxQueued) {
      return Error{ErrorCode::kOverloaded, "background work: expected at most " +
                                               std::to_string(kMaxQueued) +
                                               " waiting, found as many"};
    }
    queued_.push_back(std::move(work));
  }
  changed_.notify_one();
  return ok();
}

void Worker::run_completions() {
  std::deque<Completion> completed;
  {
    const std::lock_guard lock(mutex_);
    completed.swap(completed_);
  }
  for (const Completion& completion : completed) {
    if (completion) completion();
  }
}

std::size_t Worker::waiting() const {
  const std::lock_guard lock(mutex_);
  return queued_.size();
}

void Worker::loop() {
  while (true) {
    Work work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !queued_.empty(); });
      if (stop_) return;
      work = std::move(queued_.front());
      queued_.pop_front();
    }
    Completion completion = work();
    {
      const std::lock_guard lock(mutex_);
      completed_.push_back(std::move(completion));
    }
    wake_();
  }
}

}  // namespace memslot
