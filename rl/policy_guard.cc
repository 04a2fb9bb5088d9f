#include "rl/policy_guard.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace memslot {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr std::size_t kEra = 256;  // episodes remembered of one policy

// The share alpha of the k-th look; they sum up to alpha.
double spent(double alpha, std::uint64_t k) {
  const auto n = static_cast<double>(k);
  return alpha / (n * (n + 1));
}

// A policy's probabilities of one step as those of how it would act.
std::vector<double> probabilities(const std::vector<float>& logs, ActsBy by) {
  std::vector<double> out(logs.size(), 0.0);
  if (by == ActsBy::kBestAction) {
    out[static_cast<std::size_t>(std::max_element(logs.begin(), logs.end()) - logs.begin())] = 1;
    return out;
  }
  std::transform(logs.begin(), logs.end(), out.begin(),
                 [](float log) { return std::exp(static_cast<double>(log)); });
  return out;
}

struct Weighed {
  double weight = 0, unjudged = 0;
};

Weighed weigh(const std::vector<double>& pi, const std::vector<double>& mu, std::size_t action,
              double cap) {
  Weighed out;
  out.weight = std::min(cap, pi[action] / mu[action]);
  for (std::size_t a = 0; a < pi.size(); ++a) out.unjudged += std::max(0.0, pi[a] - cap * mu[a]);
  return out;
}

bool usable(const LoggedStep& step) {
  const std::size_t k = step.acting.size();
  const auto known = [](float log) { return log <= 0; };  // not NaN; -infinity: never taken
  return std::isfinite(step.reward) && step.action < k && step.other.size() == k &&
         std::isfinite(step.acting[step.action]) &&
         std::all_of(step.acting.begin(), step.acting.end(), known) &&
         std::all_of(step.other.begin(), step.other.end(), known);
}

// Means of the lowest and of the highest tenth, and of all.
struct Rewards {
  double low = 0, mean = 0, high = 0;
};

Rewards rewards_of(const std::vector<const LoggedStep*>& steps) {
  std::vector<double> sorted;
  for (const LoggedStep* step : steps) sorted.push_back(static_cast<double>(step->reward));
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size(), tenth = std::max<std::size_t>(1, n / 10);
  Rewards out;
  for (std::size_t i = 0; i < n; ++i) {
    out.mean += sorted[i] / static_cast<double>(n);
    if (i < tenth) out.low += sorted[i] / static_cast<double>(tenth);
    if (i + tenth >= n) out.high += sorted[i] / static_cast<double>(tenth);
  }
  return out;
}

// z with P(N > z) = alpha, by bisection: called a few times a look.
double normal_quantile(double alpha) {
  double low = -40, high = 40;
  for (int i = 0; i < 100; ++i) {
    const double z = (low + high) / 2;
    (0.5 * std::erfc(z / std::sqrt(2.0)) > alpha ? low : high) = z;
  }
  return (low + high) / 2;
}

}  // namespace

// Abramowitz and Stegun 1964, 26.7.5: the expansion around the normal quantile. Exact for one and
// two degrees of freedom, where it is poor.
double student_quantile(double alpha, std::size_t df) {
  if (df == 0) return kInfinite;
  if (df == 1) return 1 / std::tan(alpha * std::acos(-1.0));
  if (df == 2) return (1 - 2 * alpha) / std::sqrt(2 * alpha * (1 - alpha));
  const double z = normal_quantile(alpha), n = static_cast<double>(df), s = z * z;
  return z + z * (s + 1) / (4 * n) + z * ((5 * s + 16) * s + 3) / (96 * n * n) +
         z * (((3 * s + 19) * s + 17) * s - 15) / (384 * n * n * n) +
         z * ((((79 * s + 776) * s + 1482) * s - 1920) * s - 945) / (92160 * n * n * n * n);
}

double PolicyComparison::lower(double alpha) const {
  if (episodes < 2) return -kInfinite;
  return difference() - student_quantile(alpha, episodes - 1) * standard_error;
}

double PolicyComparison::upper(double alpha) const {
  if (episodes < 2) return kInfinite;
  return judged_difference + student_quantile(alpha, episodes - 1) * standard_error;
}

PolicyComparison compare_policies(std::span<const LoggedStep> steps, ActsBy by, double cap) {
  std::vector<const LoggedStep*> used;
  for (const LoggedStep& step : steps) {
    if (usable(step)) used.push_back(&step);
  }
  PolicyComparison out;
  out.steps = used.size();
  if (used.empty()) return out;
  const Rewards r = rewards_of(used);
  const auto n = static_cast<double>(used.size());
  double weights = 0, squares = 0;
  std::map<std::uint64_t, std::pair<double, double>> by_episode;  // sum of d_t, steps
  double difference = 0;
  for (const LoggedStep* step : used) {
    const auto mu = probabilities(step->acting, ActsBy::kDrawing);
    const auto pi_good = probabilities(step->acting, by), pi = probabilities(step->other, by);
    const Weighed good = weigh(pi_good, mu, step->action, cap);
    const Weighed other = weigh(pi, mu, step->action, cap);
    const double above = static_cast<double>(step->reward) - r.mean;
    double d = (other.weight - good.weight) * above;
    out.judged_difference += d / n;
    if (pi != pi_good) d -= other.unjudged * (r.mean - r.low) + good.unjudged * (r.high - r.mean);
    weights += other.weight;
    squares += other.weight * other.weight;
    out.unjudged += other.unjudged / n;
    out.value_good += (r.mean + (good.weight - 1) * above) / n;
    difference += d / n;
    auto& episode = by_episode[step->episode];
    episode.first += d;
    episode.second += 1;
  }
  out.value_new = out.value_good + difference;
  out.effective_steps = squares > 0 ? weights * weights / squares : 0;
  out.episodes = by_episode.size();
  if (out.episodes < 2) return out;
  double sum = 0;
  for (const auto& [episode, found] : by_episode) {
    const double off = found.first - difference * found.second;
    sum += off * off;
  }
  const auto e = static_cast<double>(out.episodes);
  out.standard_error = std::sqrt(e / (e - 1) * sum) / n;
  return out;
}

bool PolicyGuard::earned(double reward_sum, std::size_t steps) {
  if (!std::isfinite(reward_sum) || steps == 0) return false;
  now_.push_back({reward_sum, static_cast<double>(steps)});
  if (now_.size() > kEra) now_.pop_front();
  ++episodes_;
  if (!earns_less_lately()) return false;
  now_.erase(now_.begin(), now_.end() - options_.recent);
  looks_ = looks_lately_ = 0;  // another world: nothing was spent on it
  episodes_ = options_.recent;
  next_look_ = 0;
  before_.clear();  // what was earned in the old world is no measure
  return true;
}

PolicyGuard::Mean PolicyGuard::mean_of(const Era& era, std::size_t from, std::size_t to) {
  Mean out;
  out.episodes = to - from;
  double sum = 0, steps = 0, squares = 0;
  for (std::size_t i = from; i < to; ++i) {
    sum += era[i].reward;
    steps += era[i].steps;
  }
  if (out.episodes < 2) return out;
  out.value = sum / steps;
  for (std::size_t i = from; i < to; ++i) {
    const double off = era[i].reward - out.value * era[i].steps;
    squares += off * off;
  }
  const auto n = static_cast<double>(out.episodes);
  out.variance = n / (n - 1) * squares / (steps * steps);
  return out;
}

double PolicyGuard::alpha_now() const { return spent(options_.alpha, looks_ + 1); }

PolicyGuard::Verdict PolicyGuard::judge(const PolicyComparison& drawn,
                                        const PolicyComparison& best) {
  if (drawn.episodes < options_.least_episodes) return Verdict::kGoOn;
  const bool due = static_cast<double>(episodes_) >= next_look_;
  const double alpha = alpha_now();
  if (due) {
    ++looks_;
    next_look_ = options_.growth * static_cast<double>(episodes_);
  }
  if (due && enough(drawn) && drawn.lower(alpha) > 0 &&
      best.lower(options_.set_back_alpha) > -options_.tolerance) {
    return Verdict::kPublish;
  }
  return drawn.upper(options_.set_back_alpha) < 0 ? Verdict::kSetBack : Verdict::kGoOn;
}

// Welch 1947: two means of different variances, with the smaller number of degrees of freedom. The
// lower bound of how much less `now` is.
double PolicyGuard::less_by(const Mean& now, const Mean& then, double alpha) {
  const double t = student_quantile(alpha, std::min(now.episodes, then.episodes) - 1);
  return then.value - now.value - t * std::sqrt(now.variance + then.variance);
}

bool PolicyGuard::earns_less() const {
  const Mean now = mean_of(now_, 0, now_.size()), then = mean_of(before_, 0, before_.size());
  const std::size_t least = std::min(now.episodes, then.episodes);
  if (least < options_.least_episodes || episodes_ > options_.probation) return false;
  return less_by(now, then, spent(options_.alpha, looks_back_)) > 0;
}

bool PolicyGuard::earns_less_lately() {
  const std::size_t n = now_.size(), recent = options_.recent;
  if (n < 2 * recent || episodes_ % std::max<std::size_t>(1, recent / 2) != 0) return false;
  ++looks_lately_;
  const Mean now = mean_of(now_, n - recent, n), then = mean_of(now_, 0, n - recent);
  return less_by(now, then, spent(options_.alpha, looks_lately_)) > 0;
}

bool PolicyGuard::reverts(const PolicyComparison& before) {
  MEMSLOT_CHECK(has_before_);
  if (now_.size() < options_.least_episodes) return false;
  ++looks_back_;
  if (enough(before) && before.lower(spent(options_.alpha, looks_back_)) > 0) return true;
  return earns_less() && before.judged_difference >= 0;
}

void PolicyGuard::begin_era() {
  looks_ = looks_back_ = looks_lately_ = episodes_ = 0;
  next_look_ = 0;
  now_.clear();
}

void PolicyGuard::published() {
  before_ = std::move(now_);
  has_before_ = true;
  begin_era();
}

// Its own era goes on: what was learned of it stays known.
void PolicyGuard::reverted() {
  Era kept = std::move(before_);
  before_.clear();
  has_before_ = false;
  begin_era();
  now_ = std::move(kept);
}

}  // namespace memslot
