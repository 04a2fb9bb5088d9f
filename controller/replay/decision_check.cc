#include "controller/replay/decision_check.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "controller/replay/asked_policy.h"
#include "controller/replay/recorded_features.h"

namespace memslot {
namespace {

class Checker {
 public:
  Checker(PolicyShelf* shelf, MemoryBank& bank, std::uint64_t session, TimePoint deadline)
      : shelf_(shelf), features_(bank, deadline), session_(session), deadline_(deadline) {}

  void check(const trace::Decision& decision);
  DecisionReport take() { return std::move(report_); }

 private:
  Result<const AskedPolicy*> policy_of(const std::string& spec);
  void leave(const Error& why);

  PolicyShelf* shelf_;
  RecordedFeatures features_;
  const std::uint64_t session_;
  const TimePoint deadline_;
  std::map<std::string, AskedPolicy> policies_;  // by spec
  DecisionReport report_;
};

void Checker::leave(const Error& why) {
  if (std::ranges::find(report_.unchecked, why.message) == report_.unchecked.end()) {
    report_.unchecked.push_back(why.message);
  }
}

Result<const AskedPolicy*> Checker::policy_of(const std::string& spec) {
  const auto found = policies_.find(spec);
  if (found != policies_.end()) return &found->second;
  MEMSLOT_TRY(AskedPolicy made, policy_of_spec(spec, shelf_, deadline_));
  return &(policies_[spec] = std::move(made));
}

void Checker::check(const trace::Decision& decision) {
  ++report_.decisions;
  if (!decision.features) {
    return leave({ErrorCode::kNotFound, "decisions were recorded without their features"});
  }
  const auto policy = policy_of(decision.policy);
  if (!policy) return leave(policy.error());
  const auto candidates = features_.candidates_of(decision, policy.value()->learned.get());
  if (!candidates) return leave(candidates.error());
  const Choice choice =
      policy.value()->policy->choose(recorded_context(session_, decision), candidates.value());
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
