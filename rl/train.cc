#include "rl/train.h"

#include <chrono>
#include <cmath>

#include "rl/features.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

// What the counter-based numbers are for.
enum Draw : std::uint64_t { kStreams = 21, kActions = 22, kImitated = 23 };

EpisodeStep step_of(const EnvDecision& decision, std::uint32_t key_dim) {
  EpisodeStep out;
  out.candidates = static_cast<std::uint32_t>(decision.candidates.size());
  append_features(decision.context, decision.candidates, out.features);
  if (decision.context.query.empty()) return out;
  out.query.assign(decision.context.query.begin(), decision.context.query.end());
  out.keys.assign(std::size_t{out.candidates} * key_dim, 0.0f);
  for (std::size_t i = 0; i < decision.candidates.size(); ++i) {
    const auto key = decision.candidates[i].key;
    std::copy(key.begin(), key.end(), out.keys.begin() + static_cast<std::ptrdiff_t>(i * key_dim));
  }
  return out;
}

std::uint32_t sample(const std::vector<float>& log_probs, double uniform) {
  for (std::uint32_t a = 0; a + 1 < log_probs.size(); ++a) {
    uniform -= std::exp(static_cast<double>(log_probs[a]));
    if (uniform < 0) return a;
  }
  return static_cast<std::uint32_t>(log_probs.size() - 1);
}

class Trainer {
 public:
  Trainer(const GainTable& table, const TrainOptions& options)
      : options_(options), env_(table, options.env), training_(env_.streams(Split::kTrain)) {}

  Result<TrainResult> run(const std::function<bool(const TrainPoint&)>& show);

 private:
  Status warm_start();
  Result<UpdateReport> update(std::uint64_t number);
  Result<bool> look(TrainResult& result, const std::function<bool(const TrainPoint&)>& show,
                    const UpdateReport& report);
  std::size_t drawn(Draw what, std::uint64_t number, std::uint64_t i) const {
    return training_[uniform_below(training_.size(), options_.reinforce.seed, what,
                                   number * 4096 + i)];
  }

  const TrainOptions& options_;
  StreamEnv env_;
  std::vector<std::size_t> training_;
  std::unique_ptr<ReinforceLearner> learner_;
  double best_ = 0;
  std::uint32_t worse_ = 0;
  std::uint64_t steps_ = 0;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

// The best action among the candidates in hindsight of the previous step.
Status Trainer::warm_start() {
  const auto oracle = lagged_oracle_selector();
  for (std::uint64_t number = 0; number < options_.imitation; ++number) {
    std::vector<Episode> shown;
    for (std::uint32_t i = 0; i < options_.streams; ++i) {
      const std::size_t stream = drawn(kImitated, number, i);
      Episode episode;
      EnvState state;
      for (std::size_t t = env_.first_decision(stream);
           t < env_.table().streams[stream].steps.size(); ++t) {
        const EnvDecision decision = env_.decision(stream, t, state);
        const std::int32_t wanted = oracle->choose(env_, stream, t, state);
        const auto at = std::find(decision.actions.begin(), decision.actions.end(), wanted);
        EpisodeStep step = step_of(decision, env_.key_dim());
        step.trains = at != decision.actions.end();
        step.action = step.trains ? static_cast<std::uint32_t>(at - decision.actions.begin()) : 0;
        state = env_.after(state, decision.actions[step.action]);
        episode.steps.push_back(std::move(step));
      }
      shown.push_back(std::move(episode));
    }
    MEMSLOT_TRY(learner_->imitate(shown));
  }
  return ok();
}

// All rollouts advance together, so that the scorer sees them as one batch.
Result<UpdateReport> Trainer::update(std::uint64_t number) {
  struct Running {
    std::size_t stream = 0, at = 0;
    EnvState state;
    Episode episode;
  };
  std::vector<Running> running;
  for (std::uint32_t i = 0; i < options_.streams; ++i) {
    const std::size_t stream = drawn(kStreams, number, i);
    for (std::uint32_t r = 0; r < options_.rollouts; ++r) {
      running.push_back({stream, env_.first_decision(stream), {}, {}});
    }
  }
  std::uint64_t draw = 0;
  for (bool more = true; more;) {
    std::vector<EpisodeStep> steps;
    std::vector<EnvDecision> decisions;
    std::vector<Running*> owners;
    for (Running& r : running) {
      if (r.at >= env_.table().streams[r.stream].steps.size()) continue;
      decisions.push_back(env_.decision(r.stream, r.at, r.state));
      steps.push_back(step_of(decisions.back(), env_.key_dim()));
      owners.push_back(&r);
    }
    more = !steps.empty();
    MEMSLOT_TRY(const auto log_probs, learner_->log_probs(steps));
    for (std::size_t i = 0; i < steps.size(); ++i) {
      Running& r = *owners[i];
      const double uniform = uniform01(options_.reinforce.seed, kActions, (number << 24) + draw++);
      EpisodeStep& step = steps[i];
      step.action = sample(log_probs[i], uniform);
      step.log_prob = log_probs[i][step.action];
      const std::int32_t action = decisions[i].actions[step.action];
      step.reward = env_.reward(r.stream, r.at, r.state, action);
      r.state = env_.after(r.state, action);
      ++r.at;
      r.episode.steps.push_back(std::move(step));
    }
    steps_ += steps.size();
  }
  std::vector<Rollouts> streams;
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (i % options_.rollouts == 0) streams.emplace_back();
    streams.back().push_back(std::move(running[i].episode));
  }
  return learner_->update(streams);
}

Result<bool> Trainer::look(TrainResult& result, const std::function<bool(const TrainPoint&)>& show,
                           const UpdateReport& report) {
  const Checkpoint present = learner_->checkpoint(/*with_optimizer=*/false);
  MEMSLOT_TRY(auto policy, make_learned_policy(present));
  TrainPoint point;
  point.update = learner_->updates();
  point.report = report;
  point.validation =
      evaluate(env_, Split::kValidation, *policy_selector("policy", std::move(policy)));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - since_;
  point.steps_per_second = static_cast<double>(steps_) / std::max(took.count(), 1e-9);
  point.best = result.curve.empty() || point.validation.mean_gain > best_;
  if (point.best) {
    best_ = point.validation.mean_gain;
    result.best = present;
    worse_ = 0;
  } else {
    ++worse_;
  }
  const bool go_on = show == nullptr || show(point);
  result.curve.push_back(std::move(point));
  return go_on && worse_ < options_.patience;
}

Result<TrainResult> Trainer::run(const std::function<bool(const TrainPoint&)>& show) {
  if (training_.empty() || env_.table().memories.empty() || env_.key_dim() == 0) {
    return invalid("gain table", "training streams, memories and keys of training sources",
                   std::to_string(training_.size()) + " streams, " +
                       std::to_string(env_.table().memories.size()) + " memories, keys of " +
                       std::to_string(env_.key_dim()) + " dimensions");
  }
  MEMSLOT_TRY(learner_, ReinforceLearner::make({.features = feature_count(),
                                                .key_dim = env_.key_dim(),
                                                .rank = options_.rank,
                                                .hidden = options_.hidden},
                                               options_.reinforce));
  TrainResult result;
  MEMSLOT_TRY(warm_start());
  UpdateReport report;
  MEMSLOT_TRY(bool go_on, look(result, show, report));
  for (std::uint64_t number = 0; go_on && number < options_.updates; ++number) {
    MEMSLOT_TRY(report, update(number));
    if ((number + 1) % options_.look_every == 0) {
      MEMSLOT_TRY(go_on, look(result, show, report));
    }
  }
  result.resume = learner_->checkpoint(/*with_optimizer=*/true);
  return result;
}

}  // namespace

Result<TrainResult> train(const GainTable& table, const TrainOptions& options,
                          const std::function<bool(const TrainPoint&)>& show) {
  return Trainer(table, options).run(show);
}

}  // namespace memslot
