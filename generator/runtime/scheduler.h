#pragma once
// Who computes next. All decoding runs on one thread, a piece at a time, first come first served; a
// session has at most one piece in the queue, so runnable sessions take turns step by step, and a
// session that waits for a directive is simply not in the queue.
//
// Operation:   admit() hands out places, at most max_sessions at a time; then run() pieces of work.
// Concurrency: admit(), run(), post() from any thread; every piece holds the compute gate (decode).
// Limits:      at most max_waiting callers wait for a place; the next one gets kOverloaded.
// Lifecycle:   start(), stop(): pieces not yet begun end with kCancelled.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "generator/learn/compute_gate.h"
#include "shared/base/error.h"

namespace memslot {

class Scheduler {
 public:
  struct Limits {
    int max_sessions = 8;
    int max_waiting = 64;
  };
  struct Counters {
    int sessions = 0, waiting = 0;
    std::size_t queued = 0;  // pieces
    std::uint64_t pieces = 0, refused = 0;
  };

  Scheduler(ComputeGate& gate, Limits limits);
  ~Scheduler();
  void start();
  void stop();

  // A place among the sessions; given back when destroyed.
  class Place {
   public:
    explicit Place(Scheduler& owner) : owner_(&owner) {}
    Place(Place&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (owner_ != nullptr) owner_->leave();
    }

   private:
    Scheduler* owner_;
  };
  // Waits for a place, in order. kOverloaded, kCancelled (`stop`, or the scheduler stopped).
  Result<Place> admit(const std::stop_token& stop);

  using Job = std::function<Status()>;
  // Queues a piece of work; the future has its result, or kCancelled.
  std::future<Status> post(Job work);
  // post() and wait.
  Status run(Job work) { return post(std::move(work)).get(); }

  Counters counters() const;

 private:
  struct Piece {
    Job work;
    std::promise<Status> result;
  };
  void loop();
  void leave();

  ComputeGate& gate_;
  const Limits limits_;
  mutable std::mutex mutex_;
  std::condition_variable work_changed_;
  std::condition_variable_any place_changed_;
  std::deque<Piece> queue_;
  int sessions_ = 0;
  std::uint64_t next_ticket_ = 0;
  std::deque<std::uint64_t> waiting_;  // tickets, in order
  std::uint64_t pieces_ = 0, refused_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace memslot
