#include "controller/replay/policy_choices.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <utility>

#include "controller/replay/recorded_features.h"

namespace memslot {
namespace {

// Two sums of the same products, of at most 96 numbers of unit vectors, differ by far less; two
// whitenings by far more.
constexpr float kSameCosine = 1e-4f;

using Memories = std::vector<MemoryRef>;  // by slot

bool same(const MemoryRef& a, const MemoryRef& b) { return a.id.empty() ? b.id.empty() : a == b; }

bool same(const Memories& a, const Memories& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return same(x, y); });
}

// What a trace's `build` says of the model.
struct Build {
  std::string model;                 // digest, hex
  std::vector<std::int64_t> layers;  // of the slots
};
Result<Build> build_of(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool formed = json.is_object() && json.contains("model") && json["model"].is_string() &&
                      json.contains("layers") && json["layers"].is_array() &&
                      !json["layers"].empty();
  if (!formed) return corrupt("trace's build", "model and layers", text.substr(0, 60));
  Build out{.model = json["model"].get<std::string>(), .layers = {}};
  for (const auto& layer : json["layers"]) {
    if (!layer.is_number_integer()) return corrupt("trace's build", "layers", text.substr(0, 60));
    out.layers.push_back(layer.get<std::int64_t>());
  }
  return out;
}

// Goes through a trace's steps with what would have been active in them.
class Course {
 public:
  Course(const AskedPolicy& policy, const trace::Trace& trace, MemoryBank& bank, const Clock& clock,
         TimePoint deadline)
      : policy_(policy),
        trace_(trace),
        clock_(clock),
        deadline_(deadline),
        features_(bank, deadline) {}
  Result<PolicyChoices> run();

 private:
  struct Choices {
    MemoryRef mine, recorded;
  };
  Status check_asked();
  Status ask(const trace::Decision& decision);
  void take_own(const trace::Decision& decision, std::vector<Candidate>* candidates);
  void compare_spaces(const trace::Decision& decision, std::span<const Candidate> candidates);
  Result<Memories> active_in(const trace::Step& step);
  // What this policy's choice had made active, where the recorded one made `active` so.
  const MemoryRef& carried_out(const Choices& choices, const trace::Active& active) const;
  Status check_space() const;
  void note();

  const AskedPolicy& policy_;
  const trace::Trace& trace_;
  const Clock& clock_;
  const TimePoint deadline_;
  RecordedFeatures features_;
  std::uint32_t lowest_ = 0;      // the slot where a learned policy acts
  Memories active_, recorded_;    // during the step before
  std::uint32_t since_swap_ = 1;  // as the generator counts: the prompt is one
  std::map<std::pair<std::uint64_t, std::uint32_t>, Choices> choices_;  // by step, slot
  std::set<std::pair<std::uint32_t, MemoryRef>> loaded_;                // by slot
  std::uint64_t keys_ = 0, keys_elsewhere_ = 0;  // candidates' keys; those in another space
  // Decisions that lacked something: what this policy had made active, the memory that it always
  // wants, similarities over the longer window.
  std::uint64_t unlisted_ = 0, not_wanted_ = 0, without_long_ = 0;
  PolicyChoices out_;
};

// Against what the trace says of the run.
Status Course::check_asked() {
  if (trace_.start.policy.empty()) {
    return mismatch("trace", "steps that a policy chose", "memories that the user chose");
  }
  MEMSLOT_TRY(const Build build, build_of(trace_.start.build));
  if (build.layers.size() != active_.size()) {
    return corrupt("trace's build: layers", active_.size(), build.layers.size());
  }
  const auto lowest = std::ranges::min_element(build.layers);
  lowest_ = static_cast<std::uint32_t>(lowest - build.layers.begin());
  if (policy_.learned == nullptr) return ok();
  const PolicyTask& task = policy_.learned->checkpoint.task;
  if (!task.model.empty() && task.model != build.model) {
    return memslot::mismatch(policy_.spec + ": model", build.model, task.model);
  }
  if (task.layer >= 0 && task.layer != *lowest) {
    return mismatch(policy_.spec + ": layer", *lowest, task.layer);
  }
  return ok();
}

// Most must agree: a candidate may have been listed with another version's keys.
void Course::compare_spaces(const trace::Decision& decision,
                            std::span<const Candidate> candidates) {
  for (const Candidate& c : candidates) {
    if (c.key.empty() || decision.query.empty()) continue;
    ++keys_;
    const bool comparable = c.key.size() == decision.query.size();
    const float found = comparable ? dot(c.key.data(), decision.query.data(), c.key.size()) : 0.0f;
    if (!comparable || !(std::abs(found - c.mean_key) <= kSameCosine)) ++keys_elsewhere_;
  }
}

// What follows from this policy's own earlier choices.
void Course::take_own(const trace::Decision& decision, std::vector<Candidate>* candidates) {
  const bool by_a_rule = !decision.policy.starts_with("learned:");
  bool listed = false;
  for (Candidate& c : *candidates) {
    c.is_current = same(c.ref, active_[decision.slot]);
    listed = listed || c.is_current;
    c.resident = c.resident || loaded_.contains({decision.slot, c.ref});
    if (policy_.learned == nullptr) continue;
    c.swap_cost = c.is_current ? 0.0f : policy_.learned->checkpoint.task.swap_cost;
    if (by_a_rule) c.long_key = c.best_key;
  }
  if (!listed) ++unlisted_;
  if (policy_.learned == nullptr || !by_a_rule) return;
  if (!decision.query.empty()) {
    ++without_long_;
  } else {  // rules draw some then; a learned policy has base and what is active
    std::erase_if(*candidates, [](const Candidate& c) { return !c.is_base && !c.is_current; });
  }
}

Status Course::ask(const trace::Decision& decision) {
  const std::string what = "trace: decision of step " + std::to_string(decision.step);
  if (!decision.features) {
    return mismatch(what, "features (--trace-features)", "only what was chosen");
  }
  const bool formed = decision.slot < active_.size() && !decision.candidates.empty() &&
                      decision.candidates[0].ref.id.empty();
  if (!formed) return corrupt(what, "a slot of the session, and base first", "others");
  MemoryRef& mine = choices_[{decision.step, decision.slot}].mine;
  choices_[{decision.step, decision.slot}].recorded = decision.candidates[decision.chosen].ref;
  if (policy_.learned != nullptr && decision.slot != lowest_) {
    mine = active_[decision.slot];  // it keeps what is there
    return ok();
  }
  MEMSLOT_TRY(auto candidates, features_.candidates_of(decision, policy_.learned.get()));
  compare_spaces(decision, candidates);
  constexpr std::uint64_t kEnough = 64;  // keys, before many decisions are made in vain
  if (keys_ > kEnough) {
    MEMSLOT_TRY(check_space());
  }
  take_own(decision, &candidates);
  StepContext context = recorded_context(trace_.start.session, decision);
  context.steps_since_swap = since_swap_;
  const Choice choice = policy_.policy->choose(context, candidates);
  mine = candidates[choice.index].ref;
  ++out_.decisions;
  if (!same(mine, decision.candidates[decision.chosen].ref)) ++out_.otherwise;
  if (policy_.policy->wanted() != nullptr && mine.id.empty()) ++not_wanted_;
  return ok();
}

const MemoryRef& Course::carried_out(const Choices& choices, const trace::Active& active) const {
  const MemoryRef& then = active.memory.ref;
  if (!same(choices.mine, choices.recorded) || same(then, choices.recorded)) return choices.mine;
  // It did not load: what was active stayed (in async, what had been reported came back).
  const bool together = same(active_[active.slot], recorded_[active.slot]);
  return together ? then : active_[active.slot];
}

Result<Memories> Course::active_in(const trace::Step& step) {
  Memories out = active_;
  bool decided = !step.advised_step;  // without advice what is active stays
  for (const trace::Active& active : step.active) {
    if (active.reason == wire::ActiveReason::kPinned) {
      out[active.slot] = active.memory.ref;
      decided = true;
      continue;
    }
    if (!step.advised_step) continue;
    const auto choices = choices_.find({*step.advised_step, active.slot});
    if (choices == choices_.end()) continue;  // a slot in which the recorded policy does not act
    out[active.slot] = carried_out(choices->second, active);
    decided = true;
  }
  if (decided) return out;
  return Error{ErrorCode::kNotFound, "trace: decision of step " +
                                         std::to_string(*step.advised_step) +
                                         ": expected one, found none"};
}

Status Course::check_space() const {
  if (keys_elsewhere_ * 2 <= keys_) return ok();
  return mismatch(policy_.spec + ": whitening", "the one of the recorded similarities", "another");
}

void Course::note() {
  const auto of = [](std::uint64_t count) { return std::to_string(count) + " decisions"; };
  if (without_long_ > 0) {
    out_.notes.push_back(of(without_long_) +
                         ": recorded by a rule, without similarities over the longer window; those "
                         "over the shorter stand in");
  }
  if (unlisted_ > 0) {
    out_.notes.push_back(of(unlisted_) +
                         ": what this policy had made active was not among the candidates");
  }
  if (not_wanted_ > 0) {
    out_.notes.push_back(of(not_wanted_) +
                         ": its memory was not among the candidates; base instead");
  }
}

Result<PolicyChoices> Course::run() {
  for (const trace::NamedMemory& memory : trace_.start.opening) active_.push_back(memory.ref);
  MEMSLOT_TRY(check_asked());
  recorded_ = active_;
  auto decision = trace_.decisions.begin();
  for (const trace::Step& step : trace_.steps) {
    for (; decision != trace_.decisions.end() && decision->step <= step.step; ++decision) {
      if (clock_.now() > deadline_) {
        return Error{ErrorCode::kTimeout,
                     "trace: decisions made again: expected all in time, found " +
                         std::to_string(out_.decisions) + " of " +
                         std::to_string(trace_.decisions.size())};
      }
      MEMSLOT_TRY(ask(*decision));
    }
    Memories recorded = active_;
    for (const trace::Active& active : step.active) {
      if (active.slot >= active_.size()) return corrupt("slots", active_.size(), active.slot);
      recorded[active.slot] = active.memory.ref;
    }
    MEMSLOT_TRY(Memories now, active_in(step));
    since_swap_ = same(now, active_) ? since_swap_ + 1 : 1;
    for (std::uint32_t slot = 0; slot < now.size(); ++slot) {
      if (!now[slot].id.empty()) loaded_.insert({slot, now[slot]});
      if (same(now[slot], recorded[slot]) || step.tokens.empty()) continue;
      out_.changes.push_back({step.step, slot, now[slot]});
    }
    active_ = std::move(now);
    recorded_ = std::move(recorded);
  }
  MEMSLOT_TRY(check_space());
  if (out_.decisions > 0 && not_wanted_ == out_.decisions) {
    return Error{ErrorCode::kNotFound, "policy " + policy_.spec +
                                           ": expected its memory among the candidates, found it "
                                           "in no decision"};
  }
  note();
  return std::move(out_);
}

}  // namespace

Result<PolicyChoices> choices_of(const AskedPolicy& policy, const trace::Trace& trace,
                                 MemoryBank& bank, const Clock& clock, TimePoint deadline) {
  return Course(policy, trace, bank, clock, deadline).run();
}

}  // namespace memslot
