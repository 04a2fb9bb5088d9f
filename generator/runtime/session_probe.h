#pragma once
// What all sessions of a generator count together while they run, for GET /metrics.
//
// Threads: any, without locks.
#include <array>

#include "shared/base/metrics.h"
#include "shared/wire/messages_step.h"

namespace memslot {

// Where a swap's memories came from; of several slots, the slowest. Ascending by what they cost.
enum class SwapSource : std::uint8_t { kBase, kResident, kLoaded };

struct StepReport;
struct SwapOutcome;

class SessionProbe {
 public:
  void stepped(const StepReport& report, bool sampled);
  // Also of a swap before the first step. `stage_us`: until the memories were at hand.
  void swapped(const SwapOutcome& swap, SwapSource source, double stage_us);
  void looked_up(bool resident) { lookups_[resident ? 0 : 1].add(); }
  void missed_deadline() { missed_deadlines_.add(); }
  void prefilled(std::size_t tokens, Duration computed);

  void collect(metrics::Page& page) const;

 private:
  static constexpr std::size_t kReasons = 7;  // wire::ActiveReason, from 1

  std::array<metrics::Counter, kReasons> slot_steps_;
  std::array<metrics::Counter, 2> steps_, lookups_;  // written, read; resident, not
  metrics::Counter tokens_read_, tokens_prefilled_, recomputed_, missed_deadlines_;
  metrics::Histogram selection_{metrics::kShortTimes}, recompute_{metrics::kLongTimes},
      token_{metrics::kLongTimes}, read_step_{metrics::kLongTimes}, prefill_{metrics::kLongTimes};
  std::array<metrics::Histogram, 3> swaps_{metrics::Histogram(metrics::kShortTimes),
                                           metrics::Histogram(metrics::kShortTimes),
                                           metrics::Histogram(metrics::kShortTimes)};
};

}  // namespace memslot
