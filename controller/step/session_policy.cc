// StepHandler: which policy a session has, and the steps of one that was learned.
#include "controller/step/decision.h"

namespace memslot {
namespace {

constexpr std::string_view kLearned = "learned";

Error no_policy() {
  return {ErrorCode::kNotFound,
          "policy learned: expected one that is loaded (memslot policy load FILE), found none"};
}

}  // namespace

Status check_fits(const Checkpoint& checkpoint, const SpaceKey& space) {
  const CandidateIndex::Pinned pinned{checkpoint.task.model, checkpoint.task.layer,
                                      checkpoint.whitening};
  if (pinned.fits(space)) return ok();
  const auto text = [](const std::string& model, std::int64_t layer, std::int64_t width) {
    return "model " + (model.empty() ? "any" : model.substr(0, 12)) + ", layer " +
           (layer < 0 ? "any" : std::to_string(layer)) + ", width " + std::to_string(width);
  };
  return mismatch("policy learned for", text(space.model.hex(), space.layer, space.d_model),
                  text(pinned.model, pinned.layer, pinned.whitening.dim()));
}

StepHandler::Decision StepHandler::Decision::of(const Choice& choice, const CandidateList& list) {
  const Candidate& chosen = list.candidates[choice.index];
  Decision out;
  out.log_prob = choice.log_prob;
  out.candidates = static_cast<std::uint32_t>(list.candidates.size());
  if (chosen.is_current) return out;
  out.action = chosen.is_base ? wire::ActionKind::kBase : wire::ActionKind::kUse;
  out.resident = chosen.resident;
  if (!chosen.is_base) out.version = *list.versions[choice.index];
  return out;
}

Result<StepHandler::Policy> StepHandler::policy_for(const wire::OpenSession& request,
                                                    TimePoint deadline) {
  const std::string& spec = request.policy.empty() ? options_.default_policy : request.policy;
  const bool any = spec == "auto";
  const std::string_view rest =
      std::string_view(spec).substr(std::min(spec.size(), kLearned.size()));
  const bool named = spec.starts_with(kLearned) && (rest.empty() || rest[0] == ':');
  if (!any && !named) {
    MEMSLOT_TRY(auto rule, make_policy(spec));
    return Policy{spec, std::move(rule), nullptr};
  }
  SnapshotPtr learned = learned_.shelf == nullptr ? nullptr : learned_.shelf->head();
  if (rest.size() > 1 && named) {
    if (learned_.shelf == nullptr) return no_policy();
    auto found = learned_.shelf->find(rest.substr(1), deadline);
    if (!found) return found.error();
    learned = std::move(found).value();
  }
  Status fits = ok();
  if (learned == nullptr) {
    fits = no_policy();
  } else if (request.slots.empty()) {
    fits = mismatch("policy learned", "a slot", "a session without any");
  } else {
    const wire::SlotInfo& slot = request.slots[lowest_slot(request)];
    fits = check_fits(learned->checkpoint, space_of(request, slot));
  }
  if (fits) {
    return Policy{std::string(kLearned) + ":" + learned->digest, learned->policy, learned};
  }
  if (!any) return fits.error();
  MEMSLOT_TRY(auto rule, make_policy("nearest"));
  return Policy{"nearest", std::move(rule), nullptr};
}

GenericGain& StepHandler::generic_of(const Session& session) {
  const auto& open = session.open;
  if (open.slots.empty()) return generic_[SpaceKey{}];
  const SpaceKey space = space_of(open, open.slots[lowest_slot(open)]);
  const auto found = generic_.find(space);
  if (found != generic_.end()) return found->second;
  double prior = 0;
  if (session.learned != nullptr) prior = double{session.learned->checkpoint.task.generic_gain};
  if (session.learned == nullptr) return generic_[SpaceKey{}];  // no estimate yet: 0
  return generic_.emplace(space, GenericGain(prior)).first->second;
}

StepHandler::Decision StepHandler::decide_learned(Session& session,
                                                  const wire::Observation& observation,
                                                  std::size_t slot, TimePoint deadline) {
  if (slot != lowest_slot(session.open)) return {};
  const PolicySnapshot& learned = *session.learned;
  const PolicyTask& task = learned.checkpoint.task;
  const Whitening& whitening = learned.checkpoint.whitening;
  const CandidateIndex& index = keeper_.index();
  const SpaceKey space = space_of(session.open, session.open.slots[slot]);
  const std::vector<float> hidden = session.window.mean(task.window_tokens);
  const std::vector<float> longer = session.window.mean(task.long_window_tokens);
  const Whitened query = hidden.empty() ? Whitened{} : whitening.whiten(hidden);
  const Whitened long_query = longer.empty() ? Whitened{} : whitening.whiten(longer);
  const bool same_space = index.whitening_digest(space) == learned.space;
  const Whitened in_index = same_space || hidden.empty() ? query : index.query(space, hidden);
  const wire::ActiveMemory* active = active_in(observation, slot);
  CandidateList list =
      make_candidates(index, {.session = session,
                              .slot = static_cast<std::uint32_t>(slot),
                              .step = observation.step,
                              .space = space,
                              .query = in_index,
                              .current = active == nullptr ? MemoryRef{} : active->ref,
                              .limit = std::min<std::size_t>(options_.candidates, task.candidates),
                              .draw = false,
                              .swap_cost = task.swap_cost});
  if (same_space) {
    for (std::size_t i = 1; i < list.candidates.size(); ++i) {
      Candidate& c = list.candidates[i];
      const IndexedMemory* memory = index.find(c.ref.ns, c.ref.id);
      if (memory != nullptr) c.long_key = index.score(*memory, long_query).best_key;
    }
  } else {
    own_keys_.score(whitening, learned.space, {query, long_query}, list, deadline);
  }
  const StepContext context = context_of(session, observation, slot, query.reduced);
  const Choice choice = session.policy->choose(context, list.candidates);
  if (session.recorder) record(session, context, list, choice);
  if (on_choice_) on_choice_(session, context, static_cast<std::uint32_t>(slot), list, choice);
  return Decision::of(choice, list);
}

// What is not finite was no choice of the policy's, and is not learned from.
void StepHandler::record(Session& session, const StepContext& context, const CandidateList& list,
                         const Choice& choice) {
  const ScorerConfig& scorer = session.learned->checkpoint.scorer;
  const Candidate& chosen = list.candidates[choice.index];
  EpisodeRecorder::Decided decided{.at = context.step,
                                   .step = step_of(context, list.candidates, scorer.key_dim),
                                   .chosen = chosen.ref,
                                   .mean_key = chosen.mean_key,
                                   .drawn = context.explore};
  decided.step.action = static_cast<std::uint32_t>(choice.index);
  decided.step.log_prob = choice.log_prob;
  decided.step.reward = -chosen.swap_cost;
  if (check_step(decided.step, context.step, scorer.features, scorer.key_dim)) {
    session.recorder->decided(std::move(decided));
  }
}

// What the last step was worth goes to the learner, what waits for feedback to the desk.
void StepHandler::settle(Session& session, const wire::Observation& observation, bool end) {
  if (!session.recorder || session.open.slots.empty()) return;
  const PolicySnapshot& learned = *session.learned;
  const std::size_t slot = lowest_slot(session.open);
  session.recorder->outcome(observation, active_in(observation, slot), generic_of(session));
  if (auto episode = session.recorder->take_measured(end)) {
    learned_.learning->offer({std::move(*episode), /*measured=*/true, learned.space, ""});
  }
  if (!end || learned_.desk == nullptr) return;
  if (auto waiting = session.recorder->take_waiting()) {
    learned_.desk->put({.session = session.open.session,
                        .namespaces = session.open.namespaces,
                        .space = learned.space,
                        .key_dim = learned.checkpoint.scorer.key_dim,
                        .episode = std::move(*waiting)});
  }
}

}  // namespace memslot
