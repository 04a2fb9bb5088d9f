#include "rl/policy_guard.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace memslot {
namespace {

struct Estimate {
  std::vector<double> weights;  // of each step, divided by their mean
  double value = 0, effective = 0;
};

Estimate estimate(const std::vector<const LoggedStep*>& steps, float LoggedStep::*log_pi,
                  double cap) {
  Estimate out;
  double sum = 0, squares = 0, worth = 0;
  for (const LoggedStep* step : steps) {
    const double ratio =
        std::min(cap, std::exp(static_cast<double>(step->*log_pi) - double{step->log_mu}));
    out.weights.push_back(ratio);
    sum += ratio;
    squares += ratio * ratio;
    worth += ratio * double{step->reward};
  }
  if (!(sum > 0)) return out;
  const double mean = sum / static_cast<double>(steps.size());
  for (double& w : out.weights) w /= mean;
  out.value = worth / sum;
  out.effective = sum * sum / squares;
  return out;
}

}  // namespace

PolicyComparison compare_policies(std::span<const LoggedStep> steps, double cap) {
  std::vector<const LoggedStep*> usable;
  for (const LoggedStep& step : steps) {
    const bool known = std::isfinite(step.reward) && std::isfinite(step.log_mu) &&
                       step.log_good <= 0 && step.log_new <= 0;  // -infinity: never taken
    if (known) usable.push_back(&step);
  }
  PolicyComparison out;
  out.steps = usable.size();
  if (usable.empty()) return out;
  const Estimate good = estimate(usable, &LoggedStep::log_good, cap);
  const Estimate other = estimate(usable, &LoggedStep::log_new, cap);
  out.value_good = good.value;
  out.value_new = other.value;
  out.effective_steps = std::min(good.effective, other.effective);
  std::map<std::uint64_t, double> by_episode;
  for (std::size_t i = 0; i < usable.size(); ++i) {
    const double reward = usable[i]->reward;
    by_episode[usable[i]->episode] +=
        other.weights[i] * (reward - other.value) - good.weights[i] * (reward - good.value);
  }
  double squares = 0;
  for (const auto& [episode, sum] : by_episode) squares += sum * sum;
  out.episodes = by_episode.size();
  const auto e = static_cast<double>(out.episodes);
  const double correction = e > 1 ? e / (e - 1) : std::numeric_limits<double>::infinity();
  out.standard_error = std::sqrt(correction * squares) / static_cast<double>(usable.size());
  return out;
}

}  // namespace memslot
