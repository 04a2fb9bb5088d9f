#pragma once
// Time as a dependency, so that deadlines, leases and grace periods are tested without waiting.
//
// Threads: every implementation may be called from any thread.
#include <atomic>
#include <chrono>
#include <cstdint>

namespace memslot {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic; for deadlines and durations.
  virtual TimePoint now() const = 0;
  // Milliseconds since the Unix epoch; for records that people read. May jump.
  virtual std::int64_t unix_ms() const = 0;
};

class SystemClock final : public Clock {
 public:
  TimePoint now() const override;
  std::int64_t unix_ms() const override;
};

// Moves only when told. For tests and replay.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(ns_)); }
  std::int64_t unix_ms() const override { return ns_ / 1'000'000; }
  void advance(Duration by) { ns_ += by.count(); }

 private:
  std::atomic<std::int64_t> ns_ = 0;
};

inline TimePoint deadline_in(const Clock& clock, Duration d) { return clock.now() + d; }

}  // namespace memslot
