#pragma once
// A session as a task runs it: the numbers (session.h), the talk with the controller (selector.h)
// and the steps (step_loop.h), opened from a task's arguments.
//
//   auto    opens a session with the controller and follows its directives.
//   named   opens one too (that is how a memory is fetched), but follows the user: the memory is
//   active
//           from the first token on, or from the step that a schedule names.
//   base    needs no controller.
//
// Threads: the task's thread; numerical work goes through the scheduler.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "generator/runtime/engine.h"
#include "generator/runtime/step_loop.h"
#include "generator/runtime/task_arguments.h"

namespace memslot {

struct RunOptions {
  SessionArguments session;
  wire::SelectMode select = wire::SelectMode::kSync;
  Duration deadline = std::chrono::seconds(1);
  bool explore = false;
  bool sampled = false;           // tokens are written, not given
  bool with_base = false;         // a base run goes along, for the gain
  bool needs_controller = false;  // also where the first memory is base (a schedule names others)
  SessionSettings settings;
  std::string sampling = "{}";  // JSON, for the record
};

class SessionRun {
 public:
  // Opens the session and activates the named memory; reads nothing yet. Errors of the arguments
  // (slot, context), of the controller and of the memory.
  static Result<std::unique_ptr<SessionRun>> open(Engine& engine, std::vector<std::int32_t> tokens,
                                                  RunOptions options, StepLoop::Advance advance);

  std::uint64_t number() const {
    return number_;
  }  // random; also the controller's, and the trace's
  Session& session() { return *session_; }
  StepLoop& steps() { return *steps_; }
  Selector* selector() { return selector_.get(); }  // null where no controller is needed

  // Reads the given tokens but the last, a piece at a time. kCancelled.
  Status prefill(const std::stop_token& stop);
  // From the next step on.
  Status swap_to(const MemoryChoice& memory) { return swap_slot(options_.session.slot, memory); }
  Status swap_slot(std::uint32_t slot, const MemoryChoice& memory);
  // What a task's schedule, always the same, asks for before step `step`.
  bool swap_due(const ForcedSwaps& schedule, std::uint64_t step) const {
    return next_forced_ < schedule.size() && schedule[next_forced_].step <= step;
  }
  Status swap_as(const ForcedSwaps& schedule, std::uint64_t step) {
    for (; swap_due(schedule, step); ++next_forced_) {
      MEMSLOT_TRY(swap_to(schedule[next_forced_].memory));
    }
    return ok();
  }
  // Of the slot that the arguments name; null for base and for what the controller chose.
  const MemoryVersion* named_version() const { return named_ ? &*named_ : nullptr; }
  // The session's state of that slot. kNotSupported for stateless kinds.
  Result<MemoryPayload> snapshot();
  bool dirty();
  Status close();

 private:
  SessionRun(Engine& engine, RunOptions options);
  Status open_selector();
  void make_steps(StepLoop::Advance advance);

  Engine& engine_;
  RunOptions options_;
  const std::uint64_t number_;
  std::unique_ptr<Session> session_, base_;
  std::unique_ptr<Selector> selector_;
  std::unique_ptr<StepLoop> steps_;
  std::optional<MemoryVersion> named_;
  std::size_t next_forced_ = 0;  // into the task's schedule
};

}  // namespace memslot
