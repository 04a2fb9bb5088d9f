#include "rl/train.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>

#include "rl/features.h"
#include "shared/base/digest.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

using Clock = std::chrono::steady_clock;

// What the counter-based numbers are for.
enum Draw : std::uint64_t { kStreams = 21, kActions = 22, kImitated = 23, kLeftOut = 24 };

constexpr const char* kBestPrefix = "best.";
constexpr int kThresholds = 50;  // from 0 to 1

std::uint32_t sample(const std::vector<float>& log_probs, double uniform) {
  for (std::uint32_t a = 0; a + 1 < log_probs.size(); ++a) {
    uniform -= std::exp(static_cast<double>(log_probs[a]));
    if (uniform < 0) return a;
  }
  return static_cast<std::uint32_t>(log_probs.size() - 1);
}

// Exact: the shortest text that is read back as the same number.
template <class Number>
std::string text_of(Number value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

template <class Number>
Result<Number> number_in(const Checkpoint& state, const char* key) {
  const auto found = state.notes.find(key);
  Number value = 0;
  if (found == state.notes.end()) return corrupt("training state", key, "none");
  const std::string& text = found->second;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return corrupt(std::string("training state's ") + key, "a number", text);
  }
  return value;
}

// What a training is, but for how long it may last.
std::string config_digest(const TrainOptions& o, const std::string& table_digest) {
  const ReinforceOptions& r = o.reinforce;
  std::string text = "memslot-train-3 " + table_digest;
  for (const float v : {r.learning_rate, r.gamma, r.entropy_bonus, r.entropy_decay, r.clip_norm,
                        r.ratio_clip, r.averaging, r.prior.sharpness, o.env.swap_cost, o.env.margin,
                        o.hide_source, o.hide_memory}) {
    text += ' ' + text_of(v);
  }
  for (const std::uint64_t v :
       {r.seed, static_cast<std::uint64_t>(r.baseline), static_cast<std::uint64_t>(r.float64),
        static_cast<std::uint64_t>(o.env.candidates), std::uint64_t{o.env.window_tokens},
        std::uint64_t{o.env.long_window_tokens}, std::uint64_t{o.rank}, std::uint64_t{o.hidden},
        std::uint64_t{o.streams}, std::uint64_t{o.rollouts}, std::uint64_t{o.imitation},
        std::uint64_t{o.look_every}}) {
    text += ' ' + text_of(v);
  }
  return sha256(bytes_of(text)).hex();
}

// Mean of the generic gain over the steps of training streams.
float generic_gain(const StreamEnv& env) {
  double sum = 0, steps = 0;
  for (const std::size_t s : env.streams(Split::kTrain)) {
    const TableStream& stream = env.table().streams[s];
    for (std::size_t t = 0; t < stream.steps.size(); ++t, ++steps) {
      sum += static_cast<double>(env.generic(s, t));
    }
  }
  return static_cast<float>(sum / std::max(steps, 1.0));
}

// Reports of several updates as one.
class Means {
 public:
  void add(const UpdateReport& r) {
    ++count_;
    const double n = static_cast<double>(count_);
    const auto mean = [n](double& to, double value) { to += (value - to) / n; };
    mean(sum_.loss, r.loss);
    mean(sum_.mean_return, r.mean_return);
    mean(sum_.mean_reward, r.mean_reward);
    mean(sum_.entropy, r.entropy);
    mean(sum_.gradient_norm, r.gradient_norm);
    mean(sum_.value_loss, r.value_loss);
    sum_.steps += r.steps;
  }
  UpdateReport take() {
    count_ = 0;
    return std::exchange(sum_, {});
  }

 private:
  UpdateReport sum_;
  std::size_t count_ = 0;
};

class Trainer final : public Training {
 public:
  Trainer(const GainTable& table, std::string digest, TrainOptions options)
      : options_(options),
        env_(table, options.env),
        training_(env_.streams(Split::kTrain)),
        config_digest_(std::move(digest)) {}

  Status start();
  Status restore(const Checkpoint& state);

  bool done() const override {
    return looked_ && updates() % options_.look_every == 0 &&
           (updates() >= options_.updates || worse_ >= options_.patience);
  }
  Result<std::optional<TrainPoint>> advance() override;
  std::uint64_t imitated() const override {
    return std::min<std::uint64_t>(learner_->updates(), options_.imitation);
  }
  std::uint64_t updates() const override { return learner_->updates() - imitated(); }
  double best_gain() const override { return best_gain_; }
  std::uint64_t best_update() const override { return best_update_; }
  const Checkpoint& best() const override { return best_; }
  Checkpoint state() const override;
  const StreamEnv& env() const override { return env_; }

 private:
  struct Running {
    std::size_t stream = 0, at = 0;
    EnvState state;
    Episode episode;
    std::size_t drawing = 0;  // of the update
  };

  double value_of(const Score& score) const;
  float prior_threshold() const;
  std::optional<double> control_base(const Score& score) const;
  Status imitate(std::uint64_t number);
  Result<UpdateReport> update(std::uint64_t number);
  // One step of every rollout that has not ended; false if there is none.
  Result<bool> step(std::vector<Running>& running, std::uint64_t number, std::uint64_t& draw);
  std::vector<char> left_out(std::uint64_t number, std::uint64_t drawing) const;
  Result<TrainPoint> look();
  Checkpoint with_task(Checkpoint checkpoint) const;
  std::size_t drawn(Draw what, std::uint64_t number, std::uint64_t i) const {
    return training_[uniform_below(training_.size(), options_.reinforce.seed, what,
                                   number * 4096 + i)];
  }

  const TrainOptions options_;
  StreamEnv env_;
  std::vector<std::size_t> training_;
  std::vector<std::vector<char>> left_out_;  // of each drawing of the present update, by memory
  std::string config_digest_;
  std::unique_ptr<ReinforceLearner> learner_;
  Checkpoint best_;
  double best_gain_ = 0, best_value_ = 0;
  std::uint64_t best_update_ = 0;
  std::uint32_t worse_ = 0;  // looks since the best one
  bool looked_ = false;      // at the present parameters, if they are to be looked at
  Means means_;
  std::uint64_t steps_ = 0;  // of the environment, since the last look
  Clock::time_point since_ = Clock::now();
};

Status Trainer::start() {
  const GainTable& table = env_.table();
  const bool keys = std::ranges::any_of(table.memories, [&](const TableMemory& m) {
    return m.keys > 0 && m.source >= 0 &&
           table.sources[static_cast<std::size_t>(m.source)].split == Split::kTrain;
  });
  if (training_.empty() || !keys || env_.key_dim() == 0) {
    return invalid("gain table", "training streams, memories and keys of training sources",
                   std::to_string(training_.size()) + " streams, " +
                       std::to_string(table.memories.size()) + " memories, " +
                       (keys ? "" : "none of a training source with keys, ") + "queries of " +
                       std::to_string(env_.key_dim()) + " dimensions");
  }
  const ScorerConfig scorer{.features = feature_count(),
                            .key_dim = env_.key_dim(),
                            .rank = options_.rank,
                            .hidden = options_.hidden};
  ReinforceOptions options = options_.reinforce;
  if (options.prior.sharpness > 0) options.prior.threshold = prior_threshold();
  MEMSLOT_TRY(learner_, ReinforceLearner::make(scorer, options));
  return ok();
}

// What a choice is worth on validation: mean gain, less the margin where there is a memory.
double Trainer::value_of(const Score& score) const {
  return score.mean_gain - static_cast<double>(options_.env.margin) * (1 - score.base_share);
}

// With which the nearest key alone is worth most there.
float Trainer::prior_threshold() const {
  float best = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (int i = 0; i < kThresholds; ++i) {
    const float threshold = static_cast<float>(i) / kThresholds;
    const double value = value_of(evaluate(env_, Split::kValidation, *nearest_selector(threshold)));
    if (value <= most) continue;
    most = value;
    best = threshold;
  }
  return best;
}

Status Trainer::restore(const Checkpoint& state) {
  MEMSLOT_TRY(start());
  if (state.config_digest != config_digest_) {
    return memslot::mismatch("training state", "one of this table, these options and this seed",
                             "configuration " + state.config_digest);
  }
  MEMSLOT_TRY(learner_, ReinforceLearner::resume(state, options_.reinforce));
  MEMSLOT_TRY(best_gain_, number_in<double>(state, "best_gain"));
  MEMSLOT_TRY(best_value_, number_in<double>(state, "best_value"));
  MEMSLOT_TRY(best_update_, number_in<std::uint64_t>(state, "best_update"));
  MEMSLOT_TRY(worse_, number_in<std::uint32_t>(state, "worse"));
  MEMSLOT_TRY(const auto looked, number_in<int>(state, "looked"));
  MEMSLOT_TRY(const auto best, number_in<std::uint64_t>(state, "best_steps"));
  looked_ = looked != 0;
  best_ = with_task(state);
  best_.update = best;
  best_.notes.clear();
  best_.tensors.clear();
  for (const auto& [name, tensor] : state.tensors) {
    if (name.starts_with(kBestPrefix)) best_.tensors[name.substr(5)] = tensor;
  }
  if (best_.tensors.empty()) best_ = {};
  return ok();
}

std::optional<double> Trainer::control_base(const Score& score) const {
  double base = 0, steps = 0;
  for (const StreamScore& s : score.streams) {
    if (env_.table().streams[s.stream].kind != StreamKind::kControl) continue;
    base += s.base;
    steps += s.steps;
  }
  if (steps == 0) return std::nullopt;
  return base / steps;
}

Checkpoint Trainer::with_task(Checkpoint checkpoint) const {
  checkpoint.notes.clear();
  checkpoint.config_digest = config_digest_;
  checkpoint.whitening = env_.whitening();
  checkpoint.task = {.model = env_.table().model,
                     .layer = env_.table().layer,
                     .window_tokens = options_.env.window_tokens,
                     .long_window_tokens = options_.env.long_window_tokens,
                     .candidates = static_cast<std::uint32_t>(options_.env.candidates),
                     .swap_cost = options_.env.swap_cost,
                     .generic_gain = generic_gain(env_)};
  return checkpoint;
}

Checkpoint Trainer::state() const {
  Checkpoint out = with_task(learner_->checkpoint(/*with_optimizer=*/true));
  for (const auto& [name, tensor] : best_.tensors) out.tensors[kBestPrefix + name] = tensor;
  out.notes = {{"best_gain", text_of(best_gain_)},
               {"best_value", text_of(best_value_)},
               {"best_update", text_of(best_update_)},
               {"best_steps", text_of(best_.update)},
               {"worse", text_of(worse_)},
               {"looked", looked_ ? "1" : "0"}};
  return out;
}

// The lagged oracle's action, where it is among the candidates.
Status Trainer::imitate(std::uint64_t number) {
  const auto oracle = lagged_oracle_selector();
  std::vector<Episode> shown;
  for (std::uint32_t i = 0; i < options_.streams; ++i) {
    const std::size_t stream = drawn(kImitated, number, i);
    Episode episode;
    EnvState state;
    for (std::size_t t = env_.first_decision(stream); t < env_.table().streams[stream].steps.size();
         ++t) {
      const EnvDecision decision = env_.decision(stream, t, state);
      const std::int32_t wanted = oracle->choose(env_, stream, t, state);
      const auto at = std::find(decision.actions.begin(), decision.actions.end(), wanted);
      EpisodeStep step = step_of(decision.context, decision.candidates, env_.key_dim());
      step.trains = at != decision.actions.end();
      step.action = step.trains ? static_cast<std::uint32_t>(at - decision.actions.begin()) : 0;
      state = env_.after(state, decision.actions[step.action]);
      episode.steps.push_back(std::move(step));
    }
    steps_ += episode.steps.size();
    shown.push_back(std::move(episode));
  }
  MEMSLOT_TRY(learner_->imitate(shown));
  return ok();
}

// All rollouts advance together, so that the scorer sees them as one batch.
Result<bool> Trainer::step(std::vector<Running>& running, std::uint64_t number,
                           std::uint64_t& draw) {
  std::vector<EpisodeStep> steps;
  std::vector<EnvDecision> decisions;
  std::vector<Running*> owners;
  for (Running& r : running) {
    if (r.at >= env_.table().streams[r.stream].steps.size()) continue;
    const EnvDecision& made =
        decisions.emplace_back(env_.decision(r.stream, r.at, r.state, left_out_[r.drawing]));
    steps.push_back(step_of(made.context, made.candidates, env_.key_dim()));
    owners.push_back(&r);
  }
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
  return !steps.empty();
}

// Memories that one drawing of an update does without.
std::vector<char> Trainer::left_out(std::uint64_t number, std::uint64_t drawing) const {
  const GainTable& table = env_.table();
  std::uint64_t draw = (number << 28) + (drawing << 16);
  const auto chance = [&](float probability) {
    return uniform01(options_.reinforce.seed, kLeftOut, draw++) < static_cast<double>(probability);
  };
  std::vector<char> sources(table.sources.size());
  std::ranges::generate(sources, [&] { return chance(options_.hide_source) ? 1 : 0; });
  std::vector<char> out(table.memories.size());
  for (std::size_t m = 0; m < out.size(); ++m) {
    const std::int32_t source = table.memories[m].source;
    const bool with_source = source >= 0 && sources[static_cast<std::size_t>(source)] != 0;
    out[m] = chance(options_.hide_memory) || with_source ? 1 : 0;
  }
  return out;
}

Result<UpdateReport> Trainer::update(std::uint64_t number) {
  std::vector<Running> running;
  left_out_.clear();
  for (std::uint32_t i = 0; i < options_.streams; ++i) {
    const std::size_t stream = drawn(kStreams, number, i);
    left_out_.push_back(left_out(number, i));
    for (std::uint32_t r = 0; r < options_.rollouts; ++r) {
      running.push_back({stream, env_.first_decision(stream), {}, {}, i});
    }
  }
  std::uint64_t draw = 0;
  for (bool more = true; more;) {
    MEMSLOT_TRY(more, step(running, number, draw));
  }
  std::vector<Rollouts> streams;
  for (std::size_t i = 0; i < running.size(); ++i) {
    if (i % options_.rollouts == 0) streams.emplace_back();
    streams.back().push_back(std::move(running[i].episode));
  }
  return learner_->update(streams);
}

Result<TrainPoint> Trainer::look() {
  const Checkpoint present = with_task(learner_->checkpoint(/*with_optimizer=*/false));
  MEMSLOT_TRY(auto policy, make_learned_policy(present));
  TrainPoint point;
  point.update = updates();
  point.report = means_.take();
  const std::chrono::duration<double> took = Clock::now() - since_;
  point.steps_per_second = static_cast<double>(steps_) / std::max(took.count(), 1e-9);
  point.validation =
      evaluate(env_, Split::kValidation, *policy_selector("policy", std::move(policy)));
  point.control_base = control_base(point.validation);
  const double value = value_of(point.validation);
  point.best = best_.tensors.empty() || value > best_value_;
  if (point.best) {
    best_value_ = value;
    best_gain_ = point.validation.mean_gain;
    best_update_ = updates();
    best_ = present;
  }
  worse_ = point.best ? 0 : worse_ + 1;
  looked_ = true;
  steps_ = 0;
  since_ = Clock::now();
  return point;
}

Result<std::optional<TrainPoint>> Trainer::advance() {
  MEMSLOT_CHECK(!done());
  if (learner_->updates() < options_.imitation) {
    MEMSLOT_TRY(imitate(learner_->updates()));
    return std::optional<TrainPoint>();
  }
  const bool to_look = updates() % options_.look_every == 0 && !looked_;
  if (!to_look) {
    MEMSLOT_TRY(const UpdateReport report, update(updates()));
    means_.add(report);
    looked_ = false;
    if (updates() % options_.look_every != 0) return std::optional<TrainPoint>();
  }
  MEMSLOT_TRY(TrainPoint point, look());
  return std::optional(std::move(point));
}

// Finite and within its bounds.
Status check_number(const char* name, double value, double least, double most) {
  if (std::isfinite(value) && value >= least && value <= most) return ok();
  return invalid(name, "a number from " + text_of(least) + " to " + text_of(most), text_of(value));
}

}  // namespace

Status check_options(const TrainOptions& o) {
  const ReinforceOptions& r = o.reinforce;
  const auto d = [](float v) { return static_cast<double>(v); };
  MEMSLOT_TRY(check_number("learning rate", d(r.learning_rate), 1e-7, 1));
  MEMSLOT_TRY(check_number("gamma", d(r.gamma), 0, 1));
  MEMSLOT_TRY(check_number("entropy bonus", d(r.entropy_bonus), 0, 10));
  MEMSLOT_TRY(check_number("entropy decay", d(r.entropy_decay), 0, 1));
  MEMSLOT_TRY(check_number("clip norm", d(r.clip_norm), 1e-6, 1e6));
  MEMSLOT_TRY(check_number("ratio clip", d(r.ratio_clip), 1, 1e6));
  MEMSLOT_TRY(check_number("averaging", d(r.averaging), 0, 0.9999));
  MEMSLOT_TRY(check_number("prior", d(r.prior.sharpness), 0, 1000));
  MEMSLOT_TRY(check_number("swap cost", d(o.env.swap_cost), 0, 100));
  MEMSLOT_TRY(check_number("margin", d(o.env.margin), 0, 100));
  MEMSLOT_TRY(check_number("candidates", static_cast<double>(o.env.candidates), 2, 32));
  MEMSLOT_TRY(check_number("window tokens", o.env.window_tokens, 1, 128));
  MEMSLOT_TRY(check_number("long window tokens", o.env.long_window_tokens, 1, 128));
  MEMSLOT_TRY(check_number("rank", o.rank, 1, 256));
  MEMSLOT_TRY(check_number("hidden", o.hidden, 1, 1024));
  MEMSLOT_TRY(check_number("streams", o.streams, 1, 4096));
  const double least_rollouts = r.baseline == Baseline::kLeaveOneOut ? 2 : 1;
  MEMSLOT_TRY(check_number("rollouts", o.rollouts, least_rollouts, 64));
  MEMSLOT_TRY(check_number("hide source", d(o.hide_source), 0, 1));
  MEMSLOT_TRY(check_number("hide memory", d(o.hide_memory), 0, 1));
  MEMSLOT_TRY(check_number("updates", o.updates, 0, 1e6));
  MEMSLOT_TRY(check_number("imitation", o.imitation, 0, 1e6));
  MEMSLOT_TRY(check_number("look every", o.look_every, 1, 1e6));
  return check_number("patience", o.patience, 1, 1e6);
}

Result<std::unique_ptr<Training>> Training::begin(const GainTable& table, std::string table_digest,
                                                  TrainOptions options, const Checkpoint* state) {
  MEMSLOT_TRY(check_options(options));
  auto trainer = std::make_unique<Trainer>(table, config_digest(options, table_digest), options);
  MEMSLOT_TRY(state == nullptr ? trainer->start() : trainer->restore(*state));
  return std::unique_ptr<Training>(std::move(trainer));
}

Result<TrainResult> train(const GainTable& table, const TrainOptions& options) {
  MEMSLOT_TRY(const auto training, Training::begin(table, "", options));
  TrainResult out;
  while (!training->done()) {
    MEMSLOT_TRY(auto point, training->advance());
    if (point) out.curve.push_back(std::move(*point));
  }
  out.best = training->best();
  out.state = training->state();
  return out;
}

}  // namespace memslot
