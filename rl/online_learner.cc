#include "rl/online_learner.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "rl/features.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::uint64_t kDrawEpisodes = 31;  // what the counter-based numbers are for

// Of `action` under a policy that takes its most likely one.
float log_best(const std::vector<float>& log_probs, std::uint32_t action) {
  const auto best = std::max_element(log_probs.begin(), log_probs.end()) - log_probs.begin();
  return best == static_cast<std::ptrdiff_t>(action) ? 0.0f
                                                     : -std::numeric_limits<float>::infinity();
}

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

void OnlineLearner::hold_out(const Episode& episode) {
  ++counts_.held_out;
  for (const EpisodeStep& step : episode.steps) {
    if (step.trains) held_.push_back({number_, step});
  }
  while (held_.size() > options_.window) held_.pop_front();
}

Result<std::optional<OnlineLearner::Proposal>> OnlineLearner::add(Episode episode, bool measured) {
  const ScorerConfig scorer = acting_->checkpoint(false).scorer;
  if (const auto fits = check_episode(episode, scorer.features, scorer.key_dim); !fits) {
    ++counts_.refused;
    return fits.error();
  }
  if (!trains(episode)) return std::optional<Proposal>();
  if (episode.snapshot == 0) episode.snapshot = 1;  // drawn by what acted then, not by the learner
  const bool held = measured && ++number_ % options_.hold_out == 0;
  if (held) {
    hold_out(episode);
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

Result<OnlineLearner::Compared> OnlineLearner::compare(const ReinforceLearner& good,
                                                       const ReinforceLearner& other,
                                                       std::uint64_t since) const {
  std::vector<EpisodeStep> steps;
  std::vector<LoggedStep> logged;
  for (const Held& held : held_) {
    if (held.number < since) continue;
    steps.push_back(held.step);
    logged.push_back({held.number, held.step.reward, held.step.log_prob, 0, 0});
  }
  MEMSLOT_TRY(const auto of_good, good.log_probs(steps));
  MEMSLOT_TRY(const auto of_other, other.log_probs(steps));
  for (std::size_t i = 0; i < steps.size(); ++i) {
    logged[i].log_good = of_good[i][steps[i].action];
    logged[i].log_new = of_other[i][steps[i].action];
  }
  Compared out;
  out.drawn = compare_policies(logged);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    logged[i].log_good = log_best(of_good[i], steps[i].action);
    logged[i].log_new = log_best(of_other[i], steps[i].action);
  }
  out.best = compare_policies(logged);
  return out;
}

Result<std::optional<OnlineLearner::Proposal>> OnlineLearner::look() {
  if (before_ != nullptr) {
    MEMSLOT_TRY(auto looked, compare(*before_, *acting_, published_at_));
    PolicyComparison& since = looked.drawn;
    if (enough(since) && since.worse()) {
      std::swap(since.value_good, since.value_new);  // the one before is proposed
      last_look_ = since;
      return std::optional(Proposal{before_->checkpoint(false), /*revert=*/true, since});
    }
  }
  MEMSLOT_TRY(const auto looked, compare(*acting_, *learner_, 0));
  const PolicyComparison& found = looked.drawn;
  last_look_ = found;
  if (!enough(found)) return std::optional<Proposal>();
  if (found.better() && looked.best.difference() >= 0) {
    return std::optional(Proposal{learner_->checkpoint(false), /*revert=*/false, found});
  }
  if (found.worse()) {
    ++counts_.set_back;
    MEMSLOT_TRY(learner_, engine_.go_on_from(acting_->checkpoint(false), options_.reinforce));
    buffer_.clear();  // what led astray
  }
  return std::optional<Proposal>();
}

Status OnlineLearner::published(const Checkpoint& acting, bool revert) {
  std::unique_ptr<ReinforceLearner> previous = std::move(acting_);
  MEMSLOT_TRY(acting_, engine_.go_on_from(acting, options_.reinforce));
  published_at_ = number_ + 1;
  if (!revert) {
    ++counts_.snapshots;
    before_ = std::move(previous);
    return ok();
  }
  ++counts_.reverts;
  before_.reset();
  MEMSLOT_TRY(learner_, engine_.go_on_from(acting, options_.reinforce));
  buffer_.clear();
  return ok();
}

}  // namespace memslot
