#include "controller/step/step_handler.h"

#include <algorithm>
#include <cmath>

#include "controller/step/candidates.h"
#include "controller/step/decision.h"
#include "shared/base/log.h"
#include "shared/wire/limits.h"  // kMaxParts

namespace memslot {
namespace {

wire::SlotAction keep(std::size_t slot) {
  wire::SlotAction action;
  action.slot = static_cast<std::uint32_t>(slot);
  return action;
}

}  // namespace

std::size_t lowest_slot(const wire::OpenSession& session) {
  const auto& slots = session.slots;
  const auto lowest = std::min_element(
      slots.begin(), slots.end(), [](const auto& a, const auto& b) { return a.layer < b.layer; });
  return static_cast<std::size_t>(lowest - slots.begin());
}

SpaceKey space_of(const wire::OpenSession& session, const wire::SlotInfo& slot) {
  return {.model = session.model,
          .layer = slot.layer,
          .form = slot.form,
          .d_model = slot.d_model,
          .d_ff = slot.d_ff};
}

struct StepHandler::Query {
  SpaceKey space;
  Whitened whitened;
};

StepHandler::StepHandler(MemoryBank& bank, IndexKeeper& keeper, PayloadCache& payloads,
                         SessionTable& sessions, StepOptions options, LearnedParts learned)
    : bank_(bank),
      keeper_(keeper),
      payloads_(payloads),
      sessions_(sessions),
      options_(std::move(options)),
      learned_(learned),
      own_keys_(bank) {}

Result<MemoryVersion> StepHandler::resolve(const Session& session, const MemoryRef& ref,
                                           TimePoint deadline) {
  // A namespace that the session does not see looks like one without that memory.
  if (!session.sees(ref.ns)) {
    return Error{ErrorCode::kNotFound,
                 "memory: expected one that exists, found none named " + ref.text()};
  }
  MEMSLOT_TRY(MemoryVersion version, bank_.version(ref, deadline));
  const auto fits = [&](const wire::SlotInfo& slot) {
    return SpaceKey::of(version.signature) == space_of(session.open, slot);
  };
  const auto& slots = session.open.slots;
  if (std::any_of(slots.begin(), slots.end(), fits)) return version;
  if (slots.empty()) return mismatch(ref.text(), "a slot", "a session without any");
  SlotSignature expected = version.signature;
  expected.model = session.open.model;
  expected.layer = slots[0].layer;
  expected.form = slots[0].form;
  expected.d_model = slots[0].d_model;
  expected.d_ff = slots[0].d_ff;
  return check_signature(expected, version.signature).error().with_context(ref.text());
}

Result<wire::OpenSessionReply> StepHandler::open(const PeerId& peer,
                                                 const wire::OpenSession& request,
                                                 TimePoint deadline) {
  MEMSLOT_TRY(Policy policy, policy_for(request, deadline));
  MEMSLOT_TRY(const auto opened, sessions_.open(peer, request));
  Session& session = *opened.session;
  if (opened.made) {
    session.policy = std::move(policy.policy);
    session.spec = policy.spec;
    session.learned = std::move(policy.learned);
    if (session.learned == nullptr) {
      session.window = KeyWindow(options_.window_tokens);
    } else {
      const PolicyTask& task = session.learned->checkpoint.task;
      session.window = KeyWindow(std::max(task.window_tokens, task.long_window_tokens));
    }
    if (session.learned != nullptr && learned_.learning != nullptr) session.recorder.emplace();
    if (const MemoryRef* wanted = session.policy->wanted()) {
      auto version = resolve(session, *wanted, deadline);
      if (!version) {
        sessions_.close(request.session);
        return version.error().with_context("policy " + policy.spec);
      }
      session.wanted = std::move(version).value();
    }
  }
  return wire::OpenSessionReply{.session = request.session,
                                .policy = policy.spec,
                                .policy_digest = std::string(session.policy->digest())};
}

Status StepHandler::check(const Session& session, const wire::Observation& observation) const {
  const auto& slots = session.open.slots;
  if (session.last && observation.step < session.last->step) {
    return Error{ErrorCode::kConflict, "step: expected at least " +
                                           std::to_string(session.last->step) + ", found " +
                                           std::to_string(observation.step)};
  }
  if (!observation.chunks.empty() && !slots.empty()) {
    const auto expected = static_cast<std::size_t>(slots[lowest_slot(session.open)].d_model);
    for (const wire::ChunkSummary& chunk : observation.chunks) {
      if (chunk.mean.size() != expected) {
        return mismatch("chunk mean", expected, chunk.mean.size());
      }
    }
  }
  const auto outside = [&](const auto& item) { return item.slot >= slots.size(); };
  const wire::ResidentDelta& delta = observation.residents;
  if (std::any_of(observation.active.begin(), observation.active.end(), outside) ||
      std::any_of(delta.added.begin(), delta.added.end(), outside)) {
    return invalid("slot", "fewer than " + std::to_string(slots.size()), "a higher one");
  }
  return ok();
}

void StepHandler::note_outcome(const Session& session, const wire::Observation& observation) {
  if (observation.tokens == 0) return;
  std::optional<float> net;
  if (observation.gain && !observation.sampled && std::isfinite(*observation.gain)) {
    net = *observation.gain - generic_of(session).value();
  }
  for (const wire::ActiveMemory& active : observation.active) {
    if (active.ref.id.empty() || !session.sees(active.ref.ns)) continue;
    keeper_.note_use(active.ref.ns, active.ref.id, net ? &*net : nullptr);
    bank_.note_use(active.ref, net ? std::optional<double>(double{*net}) : std::nullopt);
  }
}

// The summary is of the lowest slot's input: it means nothing in another layer's space.
StepHandler::Query StepHandler::query_of(const Session& session, std::size_t slot) const {
  Query out{.space = space_of(session.open, session.open.slots[slot]), .whitened = {}};
  if (slot != lowest_slot(session.open)) return out;
  const std::vector<float> hidden = session.window.mean();
  if (!hidden.empty()) out.whitened = keeper_.index().query(out.space, hidden);
  return out;
}

StepHandler::Decision StepHandler::decide(Session& session, const wire::Observation& observation,
                                          std::size_t slot, TimePoint deadline) {
  const wire::ActiveMemory* active = active_in(observation, slot);
  Decision out;
  if (active != nullptr && active->reason == wire::ActiveReason::kPinned) return out;
  if (session.learned != nullptr) return decide_learned(session, observation, slot, deadline);
  const Query query = query_of(session, slot);
  const CandidateList list =
      make_candidates(keeper_.index(), {.session = session,
                                        .slot = static_cast<std::uint32_t>(slot),
                                        .step = observation.step,
                                        .space = query.space,
                                        .query = query.whitened,
                                        .current = active == nullptr ? MemoryRef{} : active->ref,
                                        .limit = options_.candidates});
  const StepContext context = context_of(session, observation, slot, query.whitened.reduced);
  const Choice choice = session.policy->choose(context, list.candidates);
  if (on_choice_) on_choice_(session, context, static_cast<std::uint32_t>(slot), list, choice);
  return Decision::of(choice, list);
}

void StepHandler::add_action(Decision decision, std::size_t slot, Plan& plan, TimePoint deadline) {
  wire::SlotAction action = keep(slot);
  action.action = decision.action;
  if (decision.action == wire::ActionKind::kUse) {
    action.ref = decision.version.ref;
    action.sha256 = decision.version.sha256;
    if (!decision.resident) {
      auto payload = payloads_.get(decision.version, deadline);
      if (payload && plan.parts.size() < wire::kMaxParts) {
        action.part = static_cast<std::int32_t>(plan.parts.size());
        plan.parts.push_back(std::move(payload).value());
      } else {
        // What is active goes on; the next step chooses again.
        ++counters_.payload_failed;
        log::warn("{}: kept what was active instead: {}", decision.version.ref.text(),
                  payload ? "too many payloads for one message" : payload.error().message);
        action = keep(slot);
      }
    }
  }
  plan.directive.log_prob += decision.log_prob;
  plan.directive.candidates += decision.candidates;
  plan.directive.actions.push_back(std::move(action));
}

StepHandler::Plan StepHandler::repeat(const Session& session, TimePoint deadline) {
  ++counters_.repeated;
  Plan plan{.directive = *session.last, .parts = {}};
  for (wire::SlotAction& action : plan.directive.actions) {
    if (action.part < 0) continue;
    auto version = bank_.version(action.ref, deadline);
    auto payload =
        version ? payloads_.get(version.value(), deadline) : Result<SharedBytes>(version.error());
    if (payload) {
      action.part = static_cast<std::int32_t>(plan.parts.size());
      plan.parts.push_back(std::move(payload).value());
    } else {
      action = keep(action.slot);  // erased since
    }
  }
  return plan;
}

Result<StepHandler::Plan> StepHandler::handle(const PeerId& peer,
                                              const wire::Observation& observation,
                                              TimePoint deadline) {
  MEMSLOT_TRY(Session* const session, sessions_.find(peer, observation.session));
  MEMSLOT_TRY(check(*session, observation));
  if (session->last && observation.step == session->last->step) return repeat(*session, deadline);

  ++counters_.steps;
  Plan plan;
  plan.directive.session = observation.session;
  plan.directive.step = observation.step;
  plan.directive.need_residents = !session->residents.apply(observation.residents);
  if (plan.directive.need_residents) ++counters_.residents_lost;
  if (observation.whole_window) session->window.clear();
  for (const wire::ChunkSummary& chunk : observation.chunks) {
    session->window.add(chunk.mean, chunk.tokens);
  }
  note_outcome(*session, observation);
  settle(*session, observation, /*end=*/false);
  for (std::size_t slot = 0; slot < session->open.slots.size(); ++slot) {
    add_action(decide(*session, observation, slot, deadline), slot, plan, deadline);
  }
  for (const wire::SlotAction& action : plan.directive.actions) {
    if (action.action == wire::ActionKind::kKeep) ++counters_.keep;
    if (action.action == wire::ActionKind::kBase) ++counters_.base;
    if (action.action != wire::ActionKind::kUse) continue;
    ++counters_.use;
    if (action.part < 0) ++counters_.resident;
  }
  for (const SharedBytes& part : plan.parts) counters_.payload_bytes += part->size();
  session->last = plan.directive;
  return plan;
}

Result<StepHandler::Fetched> StepHandler::fetch(const PeerId& peer,
                                                const wire::FetchMemory& request,
                                                TimePoint deadline) {
  MEMSLOT_TRY(Session* const session, sessions_.find(peer, request.session));
  MEMSLOT_TRY(MemoryVersion version, resolve(*session, request.ref, deadline));
  MEMSLOT_TRY(SharedBytes payload, payloads_.get(version, deadline));
  return Fetched{{.session = request.session, .version = std::move(version)}, std::move(payload)};
}

Result<wire::CloseSessionReply> StepHandler::close(const PeerId& peer,
                                                   const wire::CloseSession& request) {
  const auto session = sessions_.find(peer, request.session);
  if (!session && !sessions_.was_closed(request.session)) return session.error();
  if (session) {
    note_outcome(*session.value(), request.last);
    settle(*session.value(), request.last, /*end=*/true);
    sessions_.close(request.session);
  }
  return wire::CloseSessionReply{.session = request.session};
}

}  // namespace memslot
