#include "controller/replay/decision_check.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "rl/whitened_keys.h"

namespace memslot {
namespace {

constexpr std::string_view kLearned = "learned:";

class Checker {
 public:
  Checker(PolicyShelf* shelf, MemoryBank& bank, std::uint64_t session, TimePoint deadline)
      : shelf_(shelf), bank_(bank), session_(session), deadline_(deadline) {}

  void check(const trace::Decision& decision);
  DecisionReport take() { return std::move(report_); }

 private:
  struct Policy {
    std::shared_ptr<const SelectionPolicy> policy;
    SnapshotPtr learned;  // null: a rule
  };
  Result<const Policy*> policy_of(const std::string& spec);
  Result<std::span<const float>> mean_key(const Policy& policy, const MemoryRef& ref);
  Result<std::vector<Candidate>> candidates_of(const trace::Decision& decision,
                                               const Policy& policy);
  void leave(const Error& why);

  PolicyShelf* shelf_;
  MemoryBank& bank_;
  const std::uint64_t session_;
  const TimePoint deadline_;
  std::map<std::string, Policy> policies_;                                 // by spec
  std::map<std::pair<std::string, MemoryRef>, std::vector<float>> means_;  // by policy, memory
  DecisionReport report_;
};

void Checker::leave(const Error& why) {
  if (std::ranges::find(report_.unchecked, why.message) == report_.unchecked.end()) {
    report_.unchecked.push_back(why.message);
  }
}

Result<const Checker::Policy*> Checker::policy_of(const std::string& spec) {
  const auto found = policies_.find(spec);
  if (found != policies_.end()) return &found->second;
  Policy out;
  if (!spec.starts_with(kLearned)) {
    MEMSLOT_TRY(out.policy, make_policy(spec));
  } else if (shelf_ == nullptr) {
    return Error{ErrorCode::kNotFound, "policy " + spec + ": expected one that is kept"};
  } else {
    MEMSLOT_TRY(out.learned,
                shelf_->find(std::string_view(spec).substr(kLearned.size()), deadline_));
    out.policy = out.learned->policy;
  }
  return &(policies_[spec] = std::move(out));
}

Result<std::span<const float>> Checker::mean_key(const Policy& policy, const MemoryRef& ref) {
  const std::pair key(policy.learned->digest, ref);
  const auto found = means_.find(key);
  if (found != means_.end()) return std::span<const float>(found->second);
  MEMSLOT_TRY(const MemoryVersion version, bank_.version(ref, deadline_));
  std::vector<float> mean;
  if (version.keys > 0) {
    MEMSLOT_TRY(const MemoryKeys keys, bank_.load_keys(version, deadline_));
    const Whitening& whitening = policy.learned->checkpoint.whitening;
    if (keys.dim == whitening.dim()) mean = whiten_keys(whitening, keys.values).mean;
  }
  return std::span<const float>(means_[key] = std::move(mean));
}

Result<std::vector<Candidate>> Checker::candidates_of(const trace::Decision& decision,
                                                      const Policy& policy) {
  std::vector<Candidate> out;
  for (const trace::Candidate& c : decision.candidates) {
    Candidate& one = out.emplace_back();
    one.ref = c.ref;
    one.is_base = c.ref.id.empty();
    one.is_current = c.current;
    one.resident = c.resident;
    one.best_key = c.best_key;
    one.mean_key = c.mean_key;
    one.long_key = c.long_key;
    one.past_net_gain = c.past_net_gain;
    one.uses = c.uses;
    one.age = c.age;
    one.swap_cost = c.swap_cost;
    if (one.is_base || policy.learned == nullptr) continue;
    MEMSLOT_TRY(const MemoryVersion version, bank_.version(c.ref, deadline_));
    one.kind = version.signature.kind;
    MEMSLOT_TRY(one.key, mean_key(policy, c.ref));
  }
  return out;
}

void Checker::check(const trace::Decision& decision) {
  ++report_.decisions;
  if (!decision.features) {
    return leave({ErrorCode::kNotFound, "decisions were recorded without their features"});
  }
  const auto policy = policy_of(decision.policy);
  if (!policy) return leave(policy.error());
  const auto candidates = candidates_of(decision, *policy.value());
  if (!candidates) return leave(candidates.error());
  const StepContext context{.session = session_,
                            .step = decision.step,
                            .seed = decision.seed,
                            .entropy = decision.entropy,
                            .surprise = decision.surprise,
                            .steps_since_swap = decision.steps_since_swap,
                            .query = decision.query,
                            .explore = decision.explore};
  const Choice choice = policy.value()->policy->choose(context, candidates.value());
  ++report_.checked;
  const auto same = [](float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; };
  const char* other = nullptr;
  for (std::size_t i = 0; i < choice.scores.size() && i < decision.candidates.size(); ++i) {
    if (!same(choice.scores[i], decision.candidates[i].score)) other = "scores";
  }
  if (!same(choice.log_prob, decision.log_prob)) other = "log_prob";
  if (choice.index != decision.chosen) other = "choice";
  if (other != nullptr) report_.others.push_back({decision.step, decision.slot, other});
}

}  // namespace

DecisionReport check_decisions(const trace::Trace& trace, PolicyShelf* shelf, MemoryBank& bank,
                               TimePoint deadline) {
  Checker checker(shelf, bank, trace.start.session, deadline);
  for (const trace::Decision& decision : trace.decisions) checker.check(decision);
  return checker.take();
}

}  // namespace memslot
