#include "controller/trace/decision_recorder.h"

#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

trace::Candidate row_of(const Candidate& c, float score) {
  return {.ref = c.ref,
          .current = c.is_current,
          .resident = c.resident,
          .best_key = c.best_key,
          .mean_key = c.mean_key,
          .long_key = c.long_key,
          .past_net_gain = c.past_net_gain,
          .uses = c.uses,
          .age = c.age,
          .swap_cost = c.swap_cost,
          .score = score};
}

}  // namespace

void DecisionRecorder::decided(const Session& session, const StepContext& context,
                               std::uint32_t slot, const CandidateList& list,
                               const Choice& choice) {
  const std::uint64_t number = session.open.session;
  if (!store_.keeps() || !store_.has(number)) return;
  trace::Decision out{.step = context.step,
                      .slot = slot,
                      .policy = session.spec,
                      .seed = context.seed,
                      .explore = context.explore,
                      .entropy = context.entropy,
                      .surprise = context.surprise,
                      .steps_since_swap = context.steps_since_swap,
                      .chosen = 0,
                      .log_prob = choice.log_prob,
                      .features = features_,
                      .query = {},
                      .candidates = {}};
  const auto score = [&](std::size_t i) {
    return i < choice.scores.size() ? choice.scores[i] : 0.0f;
  };
  if (features_) {
    out.chosen = static_cast<std::uint32_t>(choice.index);
    out.query.assign(context.query.begin(), context.query.end());
    for (std::size_t i = 0; i < list.candidates.size(); ++i) {
      out.candidates.push_back(row_of(list.candidates[i], score(i)));
    }
  } else {
    out.candidates.push_back(row_of(list.candidates[choice.index], score(choice.index)));
  }
  noted_[number].push_back(std::move(out));
}

void DecisionRecorder::feedback(std::uint64_t session, float value) {
  if (!store_.has(session)) return;
  noted_[session].push_back(trace::Feedback{value});
}

void DecisionRecorder::flush() {
  for (const auto& [session, events] : std::exchange(noted_, {})) {
    const auto encoder = encoders_.try_emplace(session, trace::Writer::kController).first;
    for (const trace::Event& event : events) encoder->second.add(event);
    const Status kept = store_.add(session, encoder->second.take());
    if (kept) continue;
    log::warn("trace {}: {}", trace::trace_id(session), kept.error().message);
    encoders_.erase(encoder);  // memories that the file lacks will be spelled again
  }
}

void DecisionRecorder::keep_only(const SessionTable& open) {
  std::erase_if(encoders_, [&](const auto& item) { return !open.holds(item.first); });
}

}  // namespace memslot
