#pragma once
// What must reach the controller even if it is away just now: write-backs and results of learn
// jobs.
//
// Operation:   one thread sends what waits, oldest first, until it is acknowledged. A retry is the
// same
//              message with the same token, so the controller stores it once. What the controller
//              refuses for good is reported; what fails for now (no controller, timeout,
//              overloaded, outcome unknown) is tried again, with growing pauses up to two seconds.
//              So is what the controller's disk failed (kIo, kNoSpace), but only max_disk_failures
//              times in a row: then it is reported, and what waits behind it goes on.
// Concurrency: any thread; `done` runs on the outbox's thread.
// Limits:      max_bytes of parts wait at most; over it add() is kOverloaded.
// Lifecycle:   start(), flush(deadline), stop(): what then still waits ends with kCancelled.
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "generator/link/controller_link.h"

namespace memslot {

struct Outgoing {
  wire::Body body;
  std::vector<SharedBytes> parts;
  // A controller that does not know the message's session gets it opened again.
  std::optional<wire::OpenSession> session;
  std::function<void(Result<wire::Message>)> done;
};

class Outbox {
 public:
  struct Counters {
    std::size_t waiting = 0, bytes = 0;
    std::uint64_t acknowledged = 0, refused = 0, retries = 0;
  };

  Outbox(ControllerLink& link, const Clock& clock, std::size_t max_bytes,
         int max_disk_failures = 30);  // about a minute
  ~Outbox();
  void start();
  // True if everything was answered by then.
  bool flush(TimePoint deadline);
  void stop();

  Status add(Outgoing item);  // kOverloaded, kCancelled
  Counters counters() const;

 private:
  void loop();
  Result<wire::Message> send(const Outgoing& item);
  bool pause(int failures);

  ControllerLink& link_;
  const Clock& clock_;
  const std::size_t max_bytes_;
  const int max_disk_failures_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Outgoing> queue_;
  Counters counters_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace memslot
