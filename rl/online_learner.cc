#include "rl/online_learner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "rl/features.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::uint64_t kDrawEpisodes = 31;  // what the counter-based numbers are for

// Of log-probabilities computed one step at a time and in a batch.
constexpr float kSameLog = 1e-3f;

bool trains(const Episode& episode) {
  return std::any_of(episode.steps.begin(), episode.steps.end(),
                     [](const EpisodeStep& step) { return step.trains; });
}

}  // namespace

Result<std::unique_ptr<OnlineLearner>> OnlineLearner::make(const Checkpoint& acting,
                                                           PolicyEngine engine,
                                                           OnlineOptions options) {
  if (!engine.go_on_from) {
    return Error{ErrorCode::kNotSupported, "online learning: this program cannot learn policies"};
  }
  std::unique_ptr<OnlineLearner> out(new OnlineLearner(std::move(engine), options));
  MEMSLOT_TRY(out->begin_at(acting));
  return out;
}

Status OnlineLearner::begin_at(const Checkpoint& acting) {
  MEMSLOT_TRY(learner_, engine_.go_on_from(acting, options_.reinforce));
  MEMSLOT_TRY(acting_, engine_.go_on_from(acting, options_.reinforce));
  return ok();
}

Result<std::vector<std::vector<float>>> OnlineLearner::drawn_by_acting(
    const Episode& episode) const {
  MEMSLOT_TRY(auto acting, acting_->log_probs(episode.steps));
  for (std::size_t i = 0; i < episode.steps.size(); ++i) {
    const EpisodeStep& step = episode.steps[i];
    if (step.trains && !(std::abs(acting[i][step.action] - step.log_prob) < kSameLog)) {
      return std::vector<std::vector<float>>();
    }
  }
  return acting;
}

void OnlineLearner::hold_out(Episode episode, std::vector<std::vector<float>> acting) {
  ++counts_.held_out;
  for (std::size_t i = 0; i < episode.steps.size(); ++i) {
    if (!episode.steps[i].trains) continue;
    held_.push_back({number_, std::move(episode.steps[i]), std::move(acting[i])});
  }
  while (held_.size() > options_.window) held_.pop_front();
}

Result<std::optional<OnlineLearner::Proposal>> OnlineLearner::add(Episode episode, bool measured) {
  const ScorerConfig& scorer = acting_->scorer();
  if (const auto fits = check_episode(episode, scorer.features, scorer.key_dim); !fits) {
    ++counts_.refused;
    return fits.error();
  }
  if (!trains(episode)) return std::optional<Proposal>();
  if (episode.snapshot == 0) episode.snapshot = 1;  // drawn by what acted then, not by the learner
  std::vector<std::vector<float>> acting;
  if (measured) {
    MEMSLOT_TRY(acting, drawn_by_acting(episode));
  }
  if (!acting.empty()) {
    double earned = 0;
    std::size_t steps = 0;
    for (const EpisodeStep& step : episode.steps) {
      if (!step.trains) continue;
      earned += static_cast<double>(step.reward);
      ++steps;
    }
    if (guard_.earned(earned, steps)) forget();
  }
  if (!acting.empty() && ++number_ % options_.hold_out == 0) {
    hold_out(std::move(episode), std::move(acting));
  } else {
    ++counts_.episodes;
    counts_.steps += episode.steps.size();
    buffer_.push_back(std::move(episode));
    if (buffer_.size() > options_.buffer) buffer_.pop_front();
    if (++since_learned_ >= options_.batch) {
      MEMSLOT_TRY(learn());
    }
  }
  if (++since_look_ < options_.publish_every) return std::optional<Proposal>();
  since_look_ = 0;
  return look();
}

// The world is another one: what was seen of the old one would hold the new one up.
void OnlineLearner::forget() {
  const std::size_t recent = options_.guard.recent;
  const std::uint64_t first = number_ - std::min<std::uint64_t>(number_, recent);
  while (!held_.empty() && held_.front().number < first) held_.pop_front();
  if (buffer_.size() > recent) {
    buffer_.erase(buffer_.begin(), buffer_.end() - static_cast<std::ptrdiff_t>(recent));
  }
  since_learned_ = std::min<std::uint64_t>(since_learned_, buffer_.size());
  ++counts_.shifts;
}

// The newest batch is always among those drawn.
Status OnlineLearner::learn() {
  const std::size_t fresh = std::min<std::size_t>(since_learned_, buffer_.size());
  since_learned_ = 0;
  for (std::uint32_t i = 0; i < options_.updates; ++i) {
    std::vector<Rollouts> drawn;
    for (std::size_t n = 0; n < options_.drawn; ++n) {
      const std::size_t at = n < fresh ? buffer_.size() - 1 - n
                                       : uniform_below(buffer_.size(), options_.reinforce.seed,
                                                       kDrawEpisodes, drawn_++);
      drawn.push_back({buffer_[at]});
    }
    MEMSLOT_TRY(const UpdateReport report, learner_->update(drawn));
    ++counts_.updates;
    counts_.entropy = report.entropy;
    counts_.mean_return += (report.mean_reward - counts_.mean_return) * 0.1;
  }
  return ok();
}

Result<OnlineLearner::Compared> OnlineLearner::beside_acting(const ReinforceLearner& other) const {
  std::vector<EpisodeStep> steps;
  for (const Held& held : held_) steps.push_back(held.step);
  MEMSLOT_TRY(auto of_other, other.log_probs(steps));
  std::vector<LoggedStep> logged;
  for (std::size_t i = 0; i < held_.size(); ++i) {
    const Held& held = held_[i];
    logged.push_back(
        {held.number, held.step.reward, held.step.action, held.acting, std::move(of_other[i])});
  }
  return Compared{compare_policies(logged, ActsBy::kDrawing),
                  compare_policies(logged, ActsBy::kBestAction)};
}

// The learner's policy beside the one that acts, near enough to it.
Result<OnlineLearner::Compared> OnlineLearner::judgeable() {
  MEMSLOT_TRY(Compared found, beside_acting(*learner_));
  if (found.drawn.unjudged <= options_.guard.most_unjudged) {
    near_ = learner_->checkpoint(false);
    return found;
  }
  ++counts_.set_back;
  const Checkpoint from = near_ ? *near_ : acting_->checkpoint(false);
  MEMSLOT_TRY(learner_, engine_.go_on_from(from, options_.reinforce));
  return beside_acting(*learner_);
}

Result<std::optional<OnlineLearner::Proposal>> OnlineLearner::look() {
  if (guard_.has_before()) {
    MEMSLOT_TRY(const Compared with_before, beside_acting(*before_));
    if (guard_.reverts(with_before.drawn)) {
      last_look_ = with_before.drawn;
      return std::optional(
          Proposal{before_->checkpoint(false), /*revert=*/true, with_before.drawn});
    }
  }
  MEMSLOT_TRY(const Compared found, judgeable());
  last_look_ = found.drawn;
  const auto verdict = guard_.judge(found.drawn, found.best);
  if (verdict == PolicyGuard::Verdict::kPublish) {
    return std::optional(Proposal{learner_->checkpoint(false), /*revert=*/false, found.drawn});
  }
  if (verdict == PolicyGuard::Verdict::kSetBack) {
    ++counts_.set_back;
    MEMSLOT_TRY(set_back());
  }
  return std::optional<Proposal>();
}

Status OnlineLearner::set_back() {
  MEMSLOT_TRY(learner_, engine_.go_on_from(acting_->checkpoint(false), options_.reinforce));
  near_.reset();
  buffer_.clear();  // what led astray
  return ok();
}

Status OnlineLearner::published(const Checkpoint& acting, bool revert) {
  std::unique_ptr<ReinforceLearner> previous = std::move(acting_);
  MEMSLOT_TRY(acting_, engine_.go_on_from(acting, options_.reinforce));
  held_.clear();  // another policy drew them
  near_.reset();
  if (!revert) {
    ++counts_.snapshots;
    before_ = std::move(previous);
    guard_.published();
    return ok();
  }
  ++counts_.reverts;
  before_.reset();
  guard_.reverted();
  return set_back();
}

}  // namespace memslot
