#pragma once
// One step of a session: what DESIGN calls run_one(t).
//
//   observe -> directive -> stage, verify, activate -> forward the step's tokens -> report
//
//   sync    waits for the directive of step t, then runs step t with it.
//   async   runs step t with the directive of step t - 1 (reason `late`), while that of step t is
//   on
//           its way and its memory is staged.
//   pinned  no directives: what the caller names is active (forced swaps included).
//
// `keep` is said of what the observation reported: in async, where step t may run another memory
// than the one reported (of step t - 1), it brings the reported one back. A directive that does not
// come in time means: what is active stays, and the report says so. A memory that does not load
// means: the old one stays. A resident that is gone is fetched by the same deadline.
//
// Threads: one session's thread; the numerical work is handed to the scheduler.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "generator/runtime/memory_loader.h"
#include "generator/runtime/scheduler.h"
#include "generator/runtime/selector.h"
#include "generator/runtime/session.h"
#include "generator/runtime/session_probe.h"

namespace memslot {

struct StepReport {
  std::uint64_t step = 0;
  std::vector<wire::ActiveMemory> active;  // one per slot, as it was during the step
  StepOutput output;
  SwapOutcome swap;
  SwapSource swap_source = SwapSource::kBase;
  double stage_us = 0;  // until the memories of the swap were at hand
  std::uint32_t candidates = 0;
  double select_us = 0;                       // 0 where no directive came
  double compute_us = 0;                      // forward and choice of the tokens
  std::optional<std::uint64_t> advised_step;  // whose directive was applied; none: no advice came
  std::optional<float> gain;        // nats per token over base, where a base run goes along
  std::vector<std::string> faults;  // what went wrong on the way to this step, in words
};

// A memory at hand, to be activated.
struct StagedMemory {
  std::shared_ptr<const LoadedMemory> memory{};  // null: base
  SwapSource source = SwapSource::kBase;
  double micros = 0;  // what it took to get at it
};

class StepLoop {
 public:
  struct Setup {
    Session* session = nullptr;
    Session* base = nullptr;       // the same text with base, for the gain; may be null
    Selector* selector = nullptr;  // null: no controller is needed
    bool advised = false;          // follows directives; else only what is pinned
    MemoryLoader* loader = nullptr;
    Scheduler* scheduler = nullptr;
    SessionProbe* probe = nullptr;
    const Clock* clock = nullptr;
    wire::SelectMode select = wire::SelectMode::kSync;
    Duration deadline = std::chrono::seconds(1);
    bool sampled = false;            // tokens are sampled, not given
    std::uint32_t given_tokens = 0;  // of the prompt, for observation 0
  };
  // Runs the step's tokens; on the compute thread.
  using Advance = std::function<Result<StepOutput>(Session&)>;

  StepLoop(Setup setup, Advance advance);

  // `staged` at `slot` from the next step on, instead of any directive.
  void pin(std::uint32_t slot, const MemoryRef& ref, StagedMemory staged);
  // A memory by name, checked and loaded; needs a selector. As load() and fetch().
  Result<FetchedMemory> fetch_and_load(std::uint32_t slot, const MemoryRef& ref, TimePoint deadline,
                                       StagedMemory* staged);

  Result<StepReport> run_one();
  // Applies pins without running a step (before a prompt is read).
  Result<SwapOutcome> apply_pins();

  // The outcome of the last step, for CloseSession.
  wire::Observation outcome() const;
  std::uint64_t missed() const { return missed_; }
  std::uint64_t load_failures() const { return load_failures_; }

 private:
  struct Plan {
    std::vector<SlotChange> changes;
    std::vector<wire::ActiveMemory> active;
    std::uint32_t candidates = 0;
    double select_us = 0;
    std::optional<std::uint64_t> advised_step{};
    SwapSource source = SwapSource::kBase;
    double stage_us = 0;
    std::vector<std::string> faults{};
    void change(std::size_t slot, StagedMemory staged);
  };
  // What an observation said to be active: `keep` means this, also where async has gone on since.
  struct Reported {
    std::vector<wire::ActiveMemory> active;
    std::vector<std::shared_ptr<const LoadedMemory>> loaded;  // by slot
  };
  using Residents = std::vector<std::shared_ptr<const LoadedMemory>>;
  Reported reported() const;
  Residents hold_residents(const wire::Directive& directive);
  Plan advised(wire::Observation observation, const Reported& reported);
  Plan missed_plan(const Error& why);
  Plan resolve(Advice advice, const Reported& reported, TimePoint deadline);
  void take(const wire::SlotAction& action, const std::vector<SharedBytes>& parts,
            TimePoint deadline, Plan* plan);
  Result<StagedMemory> stage(const wire::SlotAction& action, const std::vector<SharedBytes>& parts,
                             TimePoint deadline);
  double micros_since(TimePoint began) const;
  Plan take_pins();
  Status compute(const Plan& plan, StepReport* report);

  Setup setup_;
  Advance advance_;
  std::uint64_t step_ = 0;
  std::vector<wire::ActiveMemory> active_;
  std::uint32_t since_swap_ = 1;  // steps that active_ has run; the prompt counts as one
  std::vector<std::pair<std::uint32_t, StagedMemory>> pins_;
  std::vector<wire::ActiveMemory> pinned_;  // what the pins are called
  std::optional<Plan> ahead_;               // async: the plan of the step before
  StepSummary summary_;
  std::uint32_t last_tokens_ = 0;
  std::optional<float> last_gain_;
  std::uint64_t missed_ = 0, load_failures_ = 0;
};

}  // namespace memslot
