#include "generator/runtime/outbox.h"

#include <algorithm>  // min
#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

std::size_t bytes_of(const Outgoing& item) {
  std::size_t bytes = 0;
  for (const SharedBytes& part : item.parts) bytes += part->size();
  return bytes;
}

bool is_for_now(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kTimeout ||
         code == ErrorCode::kOverloaded || code == ErrorCode::kIndeterminate ||
         code == ErrorCode::kBusy;
}

// The controller's disk, which somebody may make room on.
bool is_of_the_disk(ErrorCode code) {
  return code == ErrorCode::kIo || code == ErrorCode::kNoSpace;
}

}  // namespace

Outbox::Outbox(ControllerLink& link, const Clock& clock, std::size_t max_bytes,
               int max_disk_failures)
    : link_(link), clock_(clock), max_bytes_(max_bytes), max_disk_failures_(max_disk_failures) {}

Outbox::~Outbox() { stop(); }

void Outbox::start() {
  thread_ = std::thread([this] { loop(); });
}

void Outbox::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  std::deque<Outgoing> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(queue_);
    counters_.bytes = 0;
  }
  for (Outgoing& item : left) {
    item.done(Error{ErrorCode::kCancelled, "the generator stopped before the controller answered"});
  }
}

bool Outbox::flush(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return queue_.empty(); });
}

Status Outbox::add(Outgoing item) {
  const std::size_t bytes = bytes_of(item);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Error{ErrorCode::kCancelled, "the generator is stopping"};
    if (counters_.bytes + bytes > max_bytes_) {
      return Error{ErrorCode::kOverloaded, "outbox: expected at most " +
                                               std::to_string(max_bytes_) + " bytes, found " +
                                               std::to_string(counters_.bytes + bytes)};
    }
    counters_.bytes += bytes;
    queue_.push_back(std::move(item));
  }
  changed_.notify_all();
  return ok();
}

Outbox::Counters Outbox::counters() const {
  const std::lock_guard lock(mutex_);
  Counters out = counters_;
  out.waiting = queue_.size();
  return out;
}

Result<wire::Message> Outbox::send(const Outgoing& item) {
  const auto deadline = [&] { return deadline_in(clock_, std::chrono::seconds(5)); };
  auto reply = link_.call(item.body, item.parts, deadline());
  if (reply || reply.error().code != ErrorCode::kNotFound || !item.session) return reply;
  MEMSLOT_TRY(link_.call(*item.session, {}, deadline()));
  reply = link_.call(item.body, item.parts, deadline());
  // Closed again: its own end may be long past. Should it still run, its next step opens it once
  // more.
  wire::Observation last;
  last.session = item.session->session;
  link_.request(wire::CloseSession{item.session->session, std::move(last)});
  return reply;
}

// False when stopped meanwhile.
bool Outbox::pause(int failures) {
  std::unique_lock lock(mutex_);
  ++counters_.retries;
  const auto wait = std::chrono::milliseconds(std::min(2000, 100 << std::min(failures, 5)));
  changed_.wait_for(lock, wait, [&] { return stopping_; });
  return !stopping_;
}

void Outbox::loop() {
  for (int failures = 0, disk_failures = 0;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Outgoing& item = queue_.front();  // stable: only this thread removes while running
    lock.unlock();
    auto reply = send(item);
    const bool disk = !reply && is_of_the_disk(reply.error().code);
    if (disk && disk_failures == 0) log::warn("outbox: trying again: {}", reply.error().message);
    if (disk ? disk_failures++ < max_disk_failures_ : !reply && is_for_now(reply.error().code)) {
      log::debug("outbox: again: {}", reply.error().message);
      if (!pause(failures++)) return;
      continue;
    }
    failures = disk_failures = 0;
    if (!reply && reply.error().code == ErrorCode::kCancelled) return;
    const bool answered = reply.has_value();
    item.done(std::move(reply));
    lock.lock();
    ++(answered ? counters_.acknowledged : counters_.refused);
    counters_.bytes -= bytes_of(item);
    queue_.pop_front();
    lock.unlock();
    changed_.notify_all();
  }
}

}  // namespace memslot
