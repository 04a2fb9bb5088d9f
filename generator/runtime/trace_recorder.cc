#include "generator/runtime/trace_recorder.h"

#include "generator/runtime/task_events.h"
#include "shared/base/utf8.h"
#include "shared/base/version.h"

namespace memslot {
namespace {

constexpr std::uint32_t kStepsAtOnce = 8;
constexpr std::size_t kBytesAtOnce = std::size_t{1} << 16;
constexpr std::size_t kLongestFault = 300;
constexpr auto kLongest = std::chrono::seconds(1);  // that a step waits to be sent

trace::NamedMemory active_in(const Session& session, std::size_t slot) {
  const auto& active = session.slot(slot).active();
  if (active == nullptr) return {MemoryRef{"", "", 0}, {}};
  return {active->ref(), active->sha256()};
}

}  // namespace

std::string build_json(Engine& engine) {
  const BackendInfo& backend = engine.gpt.backend().info();
  return dump(nlohmann::json{{"build", std::string(build_version())},
                             {"backend", backend.name},
                             {"library", backend.library},
                             {"isa", backend.isa},
                             {"threads", backend.threads},
                             {"row_invariant", backend.row_invariant},
                             {"weights", std::string(dtype_name(engine.gpt.options().weights))},
                             {"model", engine.model_digest.hex()},
                             {"model_name", engine.gpt.config().name},
                             {"layers", engine.gpt.options().slot_layers}});
}

TraceRecorder::TraceRecorder(Engine& engine, std::uint64_t number, const Session& session,
                             trace::Start start)
    : engine_(engine), session_(number), id_(trace::trace_id(number)) {
  start.session = number;
  start.created_unix_ms = engine.clock.unix_ms();
  start.build = build_json(engine);
  start.opening.clear();
  for (std::size_t slot = 0; slot < session.slots(); ++slot) {
    start.opening.push_back(active_in(session, slot));
  }
  encoder_.add(start);
  flush();
}

void TraceRecorder::step(const StepReport& report, const Session& session, std::string text) {
  const StepOutput& output = report.output;
  trace::Step step{.step = report.step,
                   .active = {},
                   .tokens = {},
                   .log_probs = {},
                   .text = std::move(text),
                   .logits_xxh3 = output.logits_xxh3,
                   .entropy = output.summary.entropy,
                   .surprise = output.summary.surprise,
                   .gain = report.gain,
                   .candidates = report.candidates,
                   .advised_step = report.advised_step,
                   .select_us = static_cast<float>(report.select_us),
                   .swap_us = static_cast<float>(report.swap.swap_us),
                   .recompute_us = static_cast<float>(report.swap.recompute_us),
                   .compute_us = static_cast<float>(report.compute_us),
                   .recomputed = static_cast<std::uint32_t>(report.swap.recomputed)};
  for (const wire::ActiveMemory& active : report.active) {
    step.active.push_back({active.slot, active_in(session, active.slot), active.reason});
  }
  for (const TokenFigures& token : output.tokens) {
    step.tokens.push_back(token.token);
    step.log_probs.push_back(token.log_prob);
  }
  encoder_.add(step);
  for (const std::string& fault : report.faults) {
    encoder_.add(trace::Fault{report.step, head_of(fault, kLongestFault)});
  }
  ++steps_;
  const bool due = steps_ >= kStepsAtOnce || encoder_.bytes() >= kBytesAtOnce ||
                   engine_.clock.now() - flushed_ >= kLongest;
  if (due) flush();
}

void TraceRecorder::add(const trace::Event& event) { encoder_.add(event); }

void TraceRecorder::end(trace::End end) {
  encoder_.add(end);
  flush();
}

void TraceRecorder::flush() {
  flushed_ = engine_.clock.now();
  steps_ = 0;
  engine_.link.request(wire::TraceEvents{session_, ++sequence_},
                       {share_bytes(encoder_.take_and_forget())});
}

std::unique_ptr<TraceRecorder> begin_trace(Engine& engine, SessionRun& run,
                                           const SessionArguments& session, trace::Origin origin,
                                           std::vector<std::int32_t> prompt, std::string request) {
  if (!engine.link.connected() || session.namespaces.empty()) return nullptr;
  trace::Start begun;
  begun.origin = origin;
  begun.namespaces = session.namespaces;
  begun.request = std::move(request);
  begun.prompt = std::move(prompt);
  if (engine.tokenizer != nullptr) {
    auto text = engine.tokenizer->decode(begun.prompt);
    if (text) begun.prompt_text = std::move(text).value();
  }
  const bool advised = session.memory.kind == MemoryChoice::Kind::kAuto;
  if (advised && run.selector() != nullptr) begun.policy = run.selector()->policy();
  return std::make_unique<TraceRecorder>(engine, run.number(), run.session(), std::move(begun));
}

}  // namespace memslot
