#include "controller/policy/episode_recorder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace memslot {
namespace {

constexpr std::uint64_t kPriorSteps = 64, kHorizon = 512;

bool followed(const EpisodeRecorder::Decided& decision, const wire::ActiveMemory& active) {
  const MemoryRef& chosen = decision.chosen;
  const bool same = chosen.id.empty() ? active.ref.id.empty() : active.ref == chosen;
  return decision.drawn && same && active.reason == wire::ActiveReason::kDirective;
}

bool any_trains(const Episode& episode) {
  return std::any_of(episode.steps.begin(), episode.steps.end(),
                     [](const EpisodeStep& step) { return step.trains; });
}

}  // namespace

void GenericGain::add(double gain) {
  if (!std::isfinite(gain)) return;
  ++count_;
  mean_ += (gain - mean_) / static_cast<double>(std::min(count_ + kPriorSteps, kHorizon));
}

void EpisodeRecorder::decided(Decided decision) { pending_ = std::move(decision); }

void EpisodeRecorder::outcome(const wire::Observation& observation,
                              const wire::ActiveMemory* active, GenericGain& generic) {
  auto decision = std::exchange(pending_, std::nullopt);
  if (!decision || active == nullptr || observation.tokens == 0) return;
  if (decision->at + 1 != observation.step) return;
  EpisodeStep& step = decision->step;
  step.trains = followed(*decision, *active);
  const bool read = observation.gain.has_value() && !observation.sampled;
  if (read && !std::isfinite(*observation.gain)) step.trains = false;
  if (!step.trains) step.reward = 0;  // nothing that the policy did is answerable for it
  if (read && step.trains && !decision->chosen.id.empty()) {
    if (decision->mean_key <= 0) generic.add(double{*observation.gain});
    step.reward += *observation.gain - generic.value();
  }
  if (observation.sampled) {
    waiting_.push_back(std::move(step));
    if (waiting_.size() > kWaitingSteps) waiting_.pop_front();
  } else if (read) {
    measured_.steps.push_back(std::move(step));
  }
}

std::optional<Episode> EpisodeRecorder::take_measured(bool end) {
  if (measured_.steps.empty() || (!end && measured_.steps.size() < kMeasuredSteps)) return {};
  Episode out = std::exchange(measured_, {});
  if (!any_trains(out)) return {};
  return out;
}

std::optional<Episode> EpisodeRecorder::take_waiting() {
  Episode out;
  out.steps.assign(std::make_move_iterator(waiting_.begin()),
                   std::make_move_iterator(waiting_.end()));
  waiting_.clear();
  if (!any_trains(out)) return {};
  return out;
}

}  // namespace memslot
