#pragma once
// GET /metrics of the controller (docs/metrics.md).
//
// Operation:   much of what is told belongs to the link's thread. text() asks for it and waits
//              until that thread comes by, at its next tick: so a step is never held up, and
//              however often somebody asks, figures are gathered at most once a tick. Where the
//              link stands still, what it said last is told again, with its age.
// Concurrency: handled(), wanted(), answer() on the link's thread, the rest on any.
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "controller/jobs/job.h"
#include "controller/link/outbox.h"
#include "controller/link/worker.h"
#include "controller/policy/online_learning.h"
#include "controller/step/step_handler.h"
#include "controller/trace/trace_store.h"
#include "shared/base/metrics.h"
#include "storage/garbage.h"

namespace memslot {

struct ServerCounters {
  std::uint64_t messages = 0;
  std::uint64_t malformed = 0;  // did not decode
  std::uint64_t strangers = 0;  // no Hello yet
  std::uint64_t refused = 0;    // wrong role, or not on the list
  std::uint64_t peers_lost = 0;
  std::uint64_t traces_failed = 0;  // pieces of traces that were not kept
};

// What only the link's thread may look at.
struct LinkFigures {
  TimePoint taken{};
  ServerCounters server;
  StepCounters steps;
  std::size_t generators = 0, clients = 0, sessions = 0, tasks = 0;
  std::uint64_t payload_hits = 0, payload_misses = 0;
  std::size_t payload_bytes = 0, payload_budget = 0;
  std::size_t memories = 0, keys = 0;
  std::uint64_t index_builds = 0;
  JobCounts jobs{}, jobs_entered{};
};

class ControllerMetrics {
 public:
  // What any thread may ask; all must outlive the metrics.
  struct Parts {
    const Clock& clock;
    Channel& channel;
    MemoryBank& bank;
    TraceStore& traces;
    PolicyShelf& shelf;
    OnlineLearning* online;  // null: nothing is learned
    Outbox& outbox;
    Worker& quick;
    Worker& slow;
    Worker& again;
  };
  explicit ControllerMetrics(const Parts& parts) : p_(parts) {}

  void handled(const wire::Body& message, Duration time);
  // 0: nobody waits; else what to hand to answer(), with figures gathered after this call.
  std::uint64_t wanted() const;
  void answer(std::uint64_t wanted, const LinkFigures& figures);

  void collected(const GarbageReport& report);
  std::string text();

 private:
  LinkFigures ask();
  void collect_bank(metrics::Page& page);
  void collect_learning(metrics::Page& page) const;
  void collect_queues(metrics::Page& page) const;

  static constexpr std::size_t kHandlers = 6;

  const Parts p_;
  std::array<metrics::Histogram, kHandlers> handlers_{
      metrics::Histogram(metrics::kShortTimes), metrics::Histogram(metrics::kShortTimes),
      metrics::Histogram(metrics::kShortTimes), metrics::Histogram(metrics::kShortTimes),
      metrics::Histogram(metrics::kShortTimes), metrics::Histogram(metrics::kShortTimes)};
  metrics::Counter garbage_payloads_, garbage_bytes_;
  std::atomic<std::uint64_t> asked_ = 0;
  std::atomic<std::uint64_t> answered_ = 0;  // written by the link's thread, under mutex_
  std::mutex mutex_;
  std::condition_variable answer_came_;
  LinkFigures figures_;  // guarded by mutex_
  StoreUsage usage_;     // the last that the bank told; guarded by mutex_
};

}  // namespace memslot
