#pragma once
// A session's record on its way to the controller, which keeps it (docs/formats/trace.md).
//
// Events are gathered and sent a few steps at a time; nobody waits for the reply, which the link
// asks for again for a few seconds. Where there is no controller nothing is recorded; what is lost
// with one is missing in the trace, and said in the log.
//
// Threads: the task's thread.
#include <cstdint>
#include <memory>
#include <string>

#include "generator/runtime/engine.h"
#include "generator/runtime/session_run.h"
#include "shared/trace/encoder.h"

namespace memslot {

// What computes here, for the record: JSON (docs/formats/trace.md, "build").
std::string build_json(Engine& engine);

class TraceRecorder {
 public:
  // Begins a trace. Of `start` the session, the build and the time are filled in here, and what is
  // active in `session`.
  TraceRecorder(Engine& engine, std::uint64_t number, const Session& session, trace::Start start);

  // After run_one(): `session` still has active what the step ran with.
  void step(const StepReport& report, const Session& session, std::string text);
  void add(const trace::Event& event);  // a WriteBack; goes with the next steps
  void end(trace::End end);

  const std::string& id() const { return id_; }

 private:
  void flush();

  Engine& engine_;
  const std::uint64_t session_;
  const std::string id_;
  trace::Encoder encoder_{trace::Writer::kGenerator};
  std::uint64_t sequence_ = 0;
  std::uint32_t steps_ = 0;  // gathered
  TimePoint flushed_{};
};

// Begins the record of a session that was opened for a task; null where there is no controller to
// keep it, or nobody who could see it. `request`: as Start has it; `prompt`: what was read before
// the first step.
std::unique_ptr<TraceRecorder> begin_trace(Engine& engine, SessionRun& run,
                                           const SessionArguments& session, trace::Origin origin,
                                           std::vector<std::int32_t> prompt, std::string request);

}  // namespace memslot
