#include "generator/runtime/session_run.h"

#include <utility>

#include "generator/runtime/slot_infos.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::int64_t kPrefillPiece = 256;  // tokens between two chances for other sessions

}  // namespace

Result<std::unique_ptr<SessionRun>> SessionRun::open(Engine& engine,
                                                     std::vector<std::int32_t> tokens,
                                                     RunOptions options,
                                                     StepLoop::Advance advance) {
  const std::size_t slots = engine.gpt.options().slot_layers.size();
  if (options.session.slot >= slots) {
    return invalid("argument slot", "0 to " + std::to_string(slots - 1), options.session.slot);
  }
  auto run = std::unique_ptr<SessionRun>(new SessionRun(engine, std::move(options)));
  const auto& memory = run->options_.session.memory;
  run->options_.settings.kv = run->options_.session.kv;
  run->options_.settings.figures = memory.kind == MemoryChoice::Kind::kAuto;
  MEMSLOT_TRY(run->session_, Session::make(engine.gpt, engine.scratch, run->options_.settings));
  MEMSLOT_TRY(run->session_->add_tokens(tokens));
  if (run->options_.with_base) {
    SessionSettings plain;
    plain.figures = false;
    MEMSLOT_TRY(run->base_, Session::make(engine.gpt, engine.scratch, plain));
    MEMSLOT_TRY(run->base_->add_tokens(tokens));
  }
  if (memory.kind != MemoryChoice::Kind::kBase || run->options_.needs_controller) {
    MEMSLOT_TRY(run->open_selector());
  }
  run->make_steps(std::move(advance));
  if (memory.kind == MemoryChoice::Kind::kNamed) {
    MEMSLOT_TRY(run->swap_to(memory));
    MEMSLOT_TRY(run->steps_->apply_pins());
  }
  return run;
}

SessionRun::SessionRun(Engine& engine, RunOptions options)
    : engine_(engine), options_(std::move(options)), number_(random_nonce()) {}

Status SessionRun::open_selector() {
  wire::OpenSession open;
  open.session = number_;
  open.incarnation = engine_.link.incarnation();
  open.model = engine_.model_digest;
  open.slots = slot_infos(engine_.gpt);
  open.namespaces = options_.session.namespaces;
  open.policy = options_.session.policy;
  open.seed = options_.settings.sampling.seed;
  open.explore = options_.explore;
  open.select = options_.select;
  open.kv = options_.session.kv;
  open.sampling = options_.sampling;
  selector_ = std::make_unique<Selector>(engine_.link, engine_.loader.residents(), engine_.clock,
                                         std::move(open));
  return selector_->open(deadline_in(engine_.clock, std::chrono::seconds(10)));
}

void SessionRun::make_steps(StepLoop::Advance advance) {
  StepLoop::Setup setup;
  setup.session = session_.get();
  setup.base = base_.get();
  setup.selector = selector_.get();
  setup.advised = options_.session.memory.kind == MemoryChoice::Kind::kAuto;
  setup.loader = &engine_.loader;
  setup.scheduler = &engine_.scheduler;
  setup.probe = &engine_.probe;
  setup.clock = &engine_.clock;
  setup.select = options_.select;
  setup.deadline = options_.deadline;
  setup.sampled = options_.sampled;
  setup.given_tokens = options_.sampled ? static_cast<std::uint32_t>(session_->tokens().size()) : 0;
  steps_ = std::make_unique<StepLoop>(std::move(setup), std::move(advance));
}

Status SessionRun::prefill(const std::stop_token& stop) {
  const std::int64_t cached = session_->cached();
  Duration computed{};
  for (bool done = false; !done;) {
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled while reading"};
    MEMSLOT_TRY(engine_.scheduler.run([&]() -> Status {
      const TimePoint began = engine_.clock.now();
      MEMSLOT_TRY(done, session_->prefill(kPrefillPiece));
      computed += engine_.clock.now() - began;
      return ok();
    }));
  }
  engine_.probe.prefilled(static_cast<std::size_t>(session_->cached() - cached), computed);
  return ok();
}

Status SessionRun::swap_slot(std::uint32_t slot, const MemoryChoice& memory) {
  if (memory.kind == MemoryChoice::Kind::kBase) {
    steps_->pin(slot, MemoryRef{"", "", 0}, {});
    named_.reset();
    return ok();
  }
  MEMSLOT_CHECK(memory.kind == MemoryChoice::Kind::kNamed && selector_ != nullptr);
  StagedMemory staged;
  const TimePoint deadline = deadline_in(engine_.clock, std::chrono::seconds(10));
  MEMSLOT_TRY(FetchedMemory fetched, steps_->fetch_and_load(slot, memory.ref, deadline, &staged));
  steps_->pin(slot, fetched.version.ref, std::move(staged));
  named_ = std::move(fetched.version);
  return ok();
}

bool SessionRun::dirty() { return session_->slot(options_.session.slot).dirty(); }

Result<MemoryPayload> SessionRun::snapshot() {
  std::optional<Result<MemoryPayload>> state;
  MEMSLOT_TRY(engine_.scheduler.run([&]() -> Status {
    state = session_->snapshot(options_.session.slot);
    return ok();
  }));
  return std::move(*state);
}

Status SessionRun::close() {
  if (selector_ == nullptr) return ok();
  const Status closed =
      selector_->close(steps_->outcome(), deadline_in(engine_.clock, options_.deadline));
  if (!closed) log::debug("session {:x}: {}", selector_->session(), closed.error().message);
  return closed;
}

}  // namespace memslot
