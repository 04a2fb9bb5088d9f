#include "generator/runtime/step_loop.h"

#include <algorithm>  // equal, max
#include <future>
#include <utility>

#include "shared/base/log.h"

namespace memslot {

using wire::ActiveReason;
namespace {

bool same_memories(const std::vector<wire::ActiveMemory>& a,
                   const std::vector<wire::ActiveMemory>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.ref == y.ref; });
}

}  // namespace

StepLoop::StepLoop(Setup setup, Advance advance)
    : setup_(std::move(setup)), advance_(std::move(advance)) {
  for (std::uint32_t slot = 0; slot < setup_.session->slots(); ++slot) {
    active_.push_back({slot, MemoryRef{"", "", 0}, ActiveReason::kOpening});
  }
  last_tokens_ = setup_.given_tokens;
}

void StepLoop::pin(std::uint32_t slot, const MemoryRef& ref, StagedMemory staged) {
  pins_.emplace_back(slot, std::move(staged));
  pinned_.push_back({slot, ref, ActiveReason::kPinned});
}

Result<FetchedMemory> StepLoop::fetch_and_load(std::uint32_t slot, const MemoryRef& ref,
                                               TimePoint deadline, StagedMemory* staged) {
  const TimePoint began = setup_.clock->now();
  MEMSLOT_TRY(FetchedMemory fetched, setup_.selector->fetch(ref, deadline));
  const MemoryVersion& version = fetched.version;
  staged->source = SwapSource::kResident;
  staged->memory = setup_.loader->resident(slot, version.ref, version.sha256);
  setup_.probe->looked_up(staged->memory != nullptr);
  if (staged->memory == nullptr) {
    staged->source = SwapSource::kLoaded;
    MEMSLOT_TRY(staged->memory,
                setup_.loader->load(slot, version.ref, version.sha256, fetched.payload));
  }
  staged->micros = micros_since(began);
  return fetched;
}

double StepLoop::micros_since(TimePoint began) const {
  return std::chrono::duration<double, std::micro>(setup_.clock->now() - began).count();
}

Result<StagedMemory> StepLoop::stage(const wire::SlotAction& action,
                                     const std::vector<SharedBytes>& parts, TimePoint deadline) {
  const bool sent = action.part >= 0;
  const auto part = static_cast<std::size_t>(action.part);
  if (sent && part >= parts.size()) return corrupt("directive's part", parts.size(), part);
  const TimePoint began = setup_.clock->now();
  StagedMemory staged{setup_.loader->resident(action.slot, action.ref, action.sha256),
                      SwapSource::kResident, 0};
  if (staged.memory == nullptr && !sent) {
    log::info("session {:x}: {} is gone, fetching it", setup_.selector->session(),
              action.ref.text());
    MEMSLOT_TRY(fetch_and_load(action.slot, action.ref, deadline, &staged));
    return staged;
  }
  setup_.probe->looked_up(staged.memory != nullptr);
  if (staged.memory == nullptr) {
    staged.source = SwapSource::kLoaded;
    MEMSLOT_TRY(staged.memory,
                setup_.loader->load(action.slot, action.ref, action.sha256, parts[part]));
  }
  staged.micros = micros_since(began);
  return staged;
}

void StepLoop::Plan::change(std::size_t slot, StagedMemory staged) {
  changes.push_back({slot, std::move(staged.memory)});
  source = std::max(source, staged.source);
  stage_us += staged.micros;
}

StepLoop::Reported StepLoop::reported() const {
  Reported out{active_, {}};
  for (std::size_t i = 0; i < setup_.session->slots(); ++i) {
    out.loaded.push_back(setup_.session->slot(i).active());
  }
  return out;
}

StepLoop::Plan StepLoop::resolve(Advice advice, const Reported& reported, TimePoint deadline) {
  const bool async = setup_.select == wire::SelectMode::kAsync;
  const ActiveReason followed = async ? ActiveReason::kLate : ActiveReason::kDirective;
  Plan plan{{}, active_, advice.directive.candidates, advice.select_us, advice.directive.step};
  std::vector<bool> kept(plan.active.size(), true);
  for (wire::ActiveMemory& active : plan.active) active.reason = followed;
  for (const wire::SlotAction& action : advice.directive.actions) {
    if (action.action == wire::ActionKind::kKeep) continue;
    if (action.slot >= plan.active.size()) {
      log::warn("session {:x}: directive for slot {} of {}", setup_.selector->session(),
                action.slot, plan.active.size());
      continue;
    }
    kept[action.slot] = false;
    take(action, advice.parts, deadline, &plan);
  }
  for (std::size_t slot = 0; async && slot < kept.size(); ++slot) {
    if (!kept[slot]) continue;
    const auto& loaded = reported.loaded[slot];  // no change where it still runs
    plan.change(slot, {loaded, loaded ? SwapSource::kResident : SwapSource::kBase, 0});
    plan.active[slot].ref = reported.active[slot].ref;
  }
  return plan;
}

// A directive's action other than keep.
void StepLoop::take(const wire::SlotAction& action, const std::vector<SharedBytes>& parts,
                    TimePoint deadline, Plan* plan) {
  wire::ActiveMemory& active = plan->active[action.slot];
  if (action.action == wire::ActionKind::kBase) {
    plan->changes.push_back({action.slot, nullptr});
    active.ref = MemoryRef{"", "", 0};
    return;
  }
  if (setup_.select != wire::SelectMode::kAsync) {  // there the step before still runs
    const auto& running = setup_.session->slot(action.slot).active();
    const bool same =
        running != nullptr && active.ref == action.ref && running->sha256() == action.sha256;
    if (same) return;
  }
  auto memory = stage(action, parts, deadline);
  if (!memory) {
    ++load_failures_;
    active.reason = ActiveReason::kLoadFailed;
    log::warn("session {:x}: the old memory stays: {}", setup_.selector->session(),
              memory.error().message);
    plan->faults.push_back("the old memory stays: " + memory.error().message);
    return;
  }
  plan->change(action.slot, std::move(memory).value());
  active.ref = action.ref;
}

StepLoop::Plan StepLoop::missed_plan(const Error& why) {
  ++missed_;
  setup_.probe->missed_deadline();
  const bool first = active_[0].reason != ActiveReason::kMissedDeadline;  // of a row of them
  log::write(first ? 3 : 1,
             fmt::format("session {:x} step {}: no directive, keeping what is active: {}",
                         setup_.selector->session(), step_, why.message));
  Plan plan{{}, active_, 0, 0};
  for (wire::ActiveMemory& active : plan.active) active.reason = ActiveReason::kMissedDeadline;
  if (first) plan.faults.push_back("no directive, keeping what is active: " + why.message);
  return plan;
}

// The residents that a directive names: held, they outlive the pins, which would else leave a
// memory that comes with it no room.
StepLoop::Residents StepLoop::hold_residents(const wire::Directive& directive) {
  Residents out;
  for (const wire::SlotAction& action : directive.actions) {
    if (action.action != wire::ActionKind::kUse || action.part >= 0) continue;
    out.push_back(setup_.loader->resident(action.slot, action.ref, action.sha256));
  }
  return out;
}

StepLoop::Plan StepLoop::advised(wire::Observation observation, const Reported& reported) {
  const TimePoint deadline = deadline_in(*setup_.clock, setup_.deadline);
  auto advice = setup_.selector->observe(std::move(observation), deadline);
  const Residents held = advice ? hold_residents(advice.value().directive) : Residents{};
  setup_.selector->release_pins();
  return advice ? resolve(std::move(advice).value(), reported, deadline)
                : missed_plan(advice.error());
}

StepLoop::Plan StepLoop::take_pins() {
  Plan plan{{}, active_, 0, 0};
  for (auto& [slot, staged] : std::exchange(pins_, {})) plan.change(slot, std::move(staged));
  for (wire::ActiveMemory& pinned : pinned_) plan.active[pinned.slot] = std::move(pinned);
  pinned_.clear();
  return plan;
}

wire::Observation StepLoop::outcome() const {
  wire::Observation out;
  out.step = step_;
  out.chunks = summary_.chunks;
  out.entropy = summary_.entropy;
  out.surprise = summary_.surprise;
  out.gain = last_gain_;
  out.tokens = last_tokens_;
  out.sampled = setup_.sampled && step_ > 0;
  out.active = active_;
  out.steps_since_swap = since_swap_;
  return out;
}

Status StepLoop::compute(const Plan& plan, StepReport* report) {
  MEMSLOT_TRY(report->swap, setup_.session->activate(plan.changes));
  const TimePoint began = setup_.clock->now();
  MEMSLOT_TRY(report->output, advance_(*setup_.session));
  report->compute_us = micros_since(began);
  if (setup_.base == nullptr || report->output.tokens.empty()) return ok();
  MEMSLOT_TRY(const StepOutput base,
              setup_.base->read(static_cast<int>(report->output.tokens.size())));
  double gain = 0;
  for (std::size_t i = 0; i < base.tokens.size(); ++i) {
    gain += static_cast<double>(report->output.tokens[i].log_prob - base.tokens[i].log_prob);
  }
  report->gain = static_cast<float>(gain / static_cast<double>(base.tokens.size()));
  return ok();
}

Result<SwapOutcome> StepLoop::apply_pins() {
  const Plan plan = take_pins();
  SwapOutcome out;
  MEMSLOT_TRY(setup_.scheduler->run([&]() -> Status {
    MEMSLOT_TRY(out, setup_.session->activate(plan.changes));
    return ok();
  }));
  setup_.probe->swapped(out, plan.source, plan.stage_us);
  active_ = plan.active;
  return out;
}

Result<StepReport> StepLoop::run_one() {
  StepReport report;
  report.step = step_;
  if (step_ == 0) summary_ = setup_.session->prompt_summary();

  Plan plan;
  const Reported before = reported();  // read now: in async, a step runs while its directive comes
  const bool async = setup_.advised && setup_.select == wire::SelectMode::kAsync;
  if (!setup_.advised) {
    plan = take_pins();
  } else if (!async) {
    plan = advised(outcome(), before);
  } else {
    plan = ahead_ ? std::move(*ahead_) : Plan{{}, active_, 0, 0};
    ahead_.reset();
  }
  wire::Observation observation;
  if (async) observation = outcome();
  since_swap_ = same_memories(active_, plan.active) ? since_swap_ + 1 : 1;
  active_ = plan.active;
  std::future<Status> computed =
      setup_.scheduler->post([this, &plan, &report] { return compute(plan, &report); });
  if (async) ahead_ = advised(std::move(observation), before);
  MEMSLOT_TRY(computed.get());

  report.active = active_;
  report.candidates = plan.candidates;
  report.select_us = plan.select_us;
  report.advised_step = plan.advised_step;
  report.faults = std::move(plan.faults);
  report.swap_source = plan.source;
  report.stage_us = plan.stage_us;
  setup_.probe->stepped(report, setup_.sampled);
  summary_ = report.output.summary;
  last_tokens_ = static_cast<std::uint32_t>(report.output.tokens.size());
  last_gain_ = setup_.sampled ? std::nullopt : report.gain;
  ++step_;
  return report;
}

}  // namespace memslot
