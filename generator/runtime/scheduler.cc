#include "generator/runtime/scheduler.h"

#include <algorithm>  // find
#include <utility>

namespace memslot {
namespace {
Error stopped() { return {ErrorCode::kCancelled, "the generator is stopping"}; }
}  // namespace

Scheduler::Scheduler(ComputeGate& gate, Limits limits) : gate_(gate), limits_(limits) {}

Scheduler::~Scheduler() { stop(); }

void Scheduler::start() {
  thread_ = std::thread([this] { loop(); });
}

void Scheduler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_changed_.notify_all();
  place_changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<Scheduler::Place> Scheduler::admit(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  if (sessions_ >= limits_.max_sessions || !waiting_.empty()) {
    if (static_cast<int>(waiting_.size()) >= limits_.max_waiting) {
      ++refused_;
      return Error{ErrorCode::kOverloaded, "sessions: expected a free place, found " +
                                               std::to_string(sessions_) + " running and " +
                                               std::to_string(waiting_.size()) + " waiting"};
    }
    const std::uint64_t ticket = next_ticket_++;
    waiting_.push_back(ticket);
    place_changed_.wait(lock, stop, [&] {
      return stopping_ || (waiting_.front() == ticket && sessions_ < limits_.max_sessions);
    });
    const bool mine = waiting_.front() == ticket && sessions_ < limits_.max_sessions;
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), ticket));
    place_changed_.notify_all();
    if (!mine && !stopping_) return Error{ErrorCode::kCancelled, "cancelled while waiting"};
  }
  if (stopping_) return stopped();
  ++sessions_;
  return Place(*this);
}

void Scheduler::leave() {
  {
    const std::lock_guard lock(mutex_);
    --sessions_;
  }
  place_changed_.notify_all();
}

std::future<Status> Scheduler::post(Job work) {
  Piece piece{std::move(work), {}};
  std::future<Status> result = piece.result.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      piece.result.set_value(stopped());
      return result;
    }
    queue_.push_back(std::move(piece));
  }
  work_changed_.notify_one();
  return result;
}

Scheduler::Counters Scheduler::counters() const {
  const std::lock_guard lock(mutex_);
  return {sessions_, static_cast<int>(waiting_.size()), queue_.size(), pieces_, refused_};
}

void Scheduler::loop() {
  for (;;) {
    std::unique_lock lock(mutex_);
    work_changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) {
      for (Piece& piece : queue_) piece.result.set_value(stopped());
      queue_.clear();
      return;
    }
    Piece piece = std::move(queue_.front());
    queue_.pop_front();
    ++pieces_;
    lock.unlock();
    Status result = ok();
    {
      const ComputeGate::Hold hold(gate_, Work::kDecode);
      result = piece.work();
    }
    piece.result.set_value(std::move(result));
  }
}

}  // namespace memslot
