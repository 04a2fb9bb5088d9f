#include <algorithm>
#include <cmath>

#include "rl/features.h"
#include "rl/reinforce.h"
#include "rl/scorer_torch.h"

namespace memslot {
namespace {

// The steps that train, padded to the same number of candidates, with what each is worth.
struct Batch {
  torch::Tensor features;   // (B, K, F)
  torch::Tensor query;      // (B, R)
  torch::Tensor keys;       // (B, K, R)
  torch::Tensor mask;       // (B, K) of bool
  torch::Tensor action;     // (B) of int64
  torch::Tensor behaviour;  // (B): log mu(a | s); NaN where mu is pi
  torch::Tensor target;     // (B): G_t
  torch::Tensor baseline;   // (B): b_t but for the value baseline
};

struct Row {
  const EpisodeStep* step;
  bool own;  // pi acted
  float target, baseline;
};

// V(s): a small map of the mean and the maximum of the candidates' rows.
class ValueNet {
 public:
  ValueNet(std::uint32_t features, std::uint64_t seed, torch::Dtype dtype)
      : net_({.features = 2 * features, .key_dim = 0, .rank = 0, .hidden = 32}, ~seed, dtype) {}

  torch::Tensor values(const Batch& b) const {
    const torch::Tensor mask = b.mask.unsqueeze(-1);
    const torch::Tensor count = mask.to(b.features.dtype()).sum(1);
    const torch::Tensor mean = (b.features * mask).sum(1) / count;
    const torch::Tensor most = std::get<0>(
        b.features.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity())
            .max(1));
    const torch::Tensor x = torch::cat({mean, most}, -1).unsqueeze(1);  // (B, 1, 2F)
    const std::int64_t n = x.size(0);
    const auto none = torch::empty({n, 0}, x.options());
    return net_
        .scores(x, none, torch::empty({n, 1, 0}, x.options()), torch::ones({n, 1}, torch::kBool))
        .squeeze(-1);
  }
  const NamedTensors& parameters() const { return net_.parameters(); }

 private:
  ScorerNet net_;
};

class TorchLearner final : public ReinforceLearner {
 public:
  TorchLearner(ScorerConfig scorer, ReinforceOptions options)
      : options_(options),
        dtype_(options.float64 ? torch::kFloat64 : torch::kFloat32),
        net_(scorer, options.seed, dtype_, options.prior),
        value_(scorer.features, options.seed, dtype_) {
    for (const auto& [name, tensor] : net_.parameters())
      all_.emplace_back("scorer." + name, tensor);
    for (const auto& [name, tensor] : value_.parameters()) {
      all_.emplace_back("value." + name, tensor);
    }
    if (options.averaging > 0) {
      for (const auto& [name, tensor] : net_.parameters()) {
        average_.emplace_back(name, tensor.detach().clone());
      }
    }
    for (const auto& [name, tensor] : all_) {
      first_.emplace_back("adam.first." + name, torch::zeros_like(tensor));
      second_.emplace_back("adam.second." + name, torch::zeros_like(tensor));
    }
  }

  Status restore(const Checkpoint& checkpoint) {
    MEMSLOT_TRY(load(checkpoint.tensors, "", all_));
    MEMSLOT_TRY(load(checkpoint.tensors, "", first_));
    MEMSLOT_TRY(load(checkpoint.tensors, "", second_));
    MEMSLOT_TRY(load(checkpoint.tensors, "average.", average_));
    go_on(checkpoint);
    return ok();
  }
  Status take_scorer(const Checkpoint& checkpoint) {
    MEMSLOT_TRY(load(checkpoint.tensors, "scorer.", net_.parameters()));
    begin_average();
    go_on(checkpoint);
    return ok();
  }

  Result<UpdateReport> update(std::span<const Rollouts> streams) override;
  Result<UpdateReport> imitate(std::span<const Episode> episodes) override;
  Result<std::vector<std::vector<float>>> log_probs(
      std::span<const EpisodeStep> steps) const override;
  const ScorerConfig& scorer() const override { return net_.config(); }
  std::uint64_t updates() const override { return updates_; }
  Checkpoint checkpoint(bool with_optimizer) const override;
  Result<double> loss(std::span<const Rollouts> streams) const override;
  Result<std::vector<double>> gradient(std::span<const Rollouts> streams) const override;
  std::vector<double> parameters() const override;
  void set_parameters(std::span<const double> values) override;

 private:
  struct Loss {
    torch::Tensor policy, entropy, value;
    torch::Tensor total(float beta) const { return policy - beta * entropy + value; }
  };
  void go_on(const Checkpoint& checkpoint) {
    updates_ = checkpoint.update;
    frame_ = checkpoint;
    frame_.tensors.clear();
  }
  Status check(const Episode& episode) const {
    return check_episode(episode, net_.config().features, net_.config().key_dim);
  }
  Result<std::vector<Row>> rows(std::span<const Rollouts> streams) const;
  Batch batch(const std::vector<Row>& rows) const;
  Loss loss_of(const Batch& batch) const;
  float beta() const {
    return options_.entropy_bonus * std::pow(options_.entropy_decay, static_cast<float>(updates_));
  }
  void begin_average();
  void move_average();
  double step();  // from the gradients at hand: their norm before the cut

  ReinforceOptions options_;
  torch::Dtype dtype_;
  ScorerNet net_;
  ValueNet value_;
  NamedTensors all_, first_, second_;  // parameters; Adam's moments
  NamedTensors average_;               // of the scorer's parameters; empty: none is kept
  std::uint64_t updates_ = 0;
  Checkpoint frame_;  // what a checkpoint says besides, without tensors
};

Result<std::vector<Row>> TorchLearner::rows(std::span<const Rollouts> streams) const {
  std::vector<Row> out;
  for (const Rollouts& rollouts : streams) {
    std::vector<std::vector<float>> returns;
    for (const Episode& episode : rollouts) {
      MEMSLOT_TRY(check(episode));
      returns.push_back(discounted_returns(episode, options_.gamma));
    }
    const auto baselines = options_.baseline == Baseline::kLeaveOneOut
                               ? leave_one_out(returns)
                               : std::vector<std::vector<float>>(returns.size());
    for (std::size_t i = 0; i < rollouts.size(); ++i) {
      for (std::size_t t = 0; t < rollouts[i].steps.size(); ++t) {
        const EpisodeStep& step = rollouts[i].steps[t];
        if (!step.trains) continue;
        const float baseline = baselines[i].empty() ? 0.0f : baselines[i][t];
        out.push_back({&step, rollouts[i].snapshot == 0, returns[i][t], baseline});
      }
    }
  }
  if (out.empty()) return invalid("episodes", "at least one step that trains", "none");
  return out;
}

Batch TorchLearner::batch(const std::vector<Row>& rows) const {
  const auto b = static_cast<std::int64_t>(rows.size());
  const std::int64_t f = net_.config().features, r = net_.config().key_dim;
  std::int64_t k = 1;
  for (const Row& row : rows) k = std::max<std::int64_t>(k, row.step->candidates);
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  Batch out{torch::zeros({b, k, f}, f32),     torch::zeros({b, r}, f32),
            torch::zeros({b, k, r}, f32),     torch::zeros({b, k}, torch::kBool),
            torch::zeros({b}, torch::kInt64), torch::zeros({b}, f32),
            torch::zeros({b}, f32),           torch::zeros({b}, f32)};
  const auto put = [](const std::vector<float>& from, const torch::Tensor& to, std::int64_t at) {
    std::copy(from.begin(), from.end(), to.data_ptr<float>() + at);
  };
  for (std::int64_t i = 0; i < b; ++i) {
    const Row& row = rows[static_cast<std::size_t>(i)];
    const EpisodeStep& step = *row.step;
    put(step.features, out.features, i * k * f);
    if (!step.query.empty() && !step.keys.empty()) {
      put(step.query, out.query, i * r);
      put(step.keys, out.keys, i * k * r);
    }
    std::fill_n(out.mask.data_ptr<bool>() + i * k, step.candidates, true);
    out.action.data_ptr<std::int64_t>()[i] = step.action;
    out.behaviour.data_ptr<float>()[i] =
        row.own ? std::numeric_limits<float>::quiet_NaN() : step.log_prob;
    out.target.data_ptr<float>()[i] = row.target;
    out.baseline.data_ptr<float>()[i] = row.baseline;
  }
  for (torch::Tensor* t :
       {&out.features, &out.query, &out.keys, &out.behaviour, &out.target, &out.baseline}) {
    *t = t->to(dtype_);
  }
  return out;
}

TorchLearner::Loss TorchLearner::loss_of(const Batch& b) const {
  const torch::Tensor log_p =
      torch::log_softmax(net_.scores(b.features, b.query, b.keys, b.mask), -1);
  const torch::Tensor of_action = log_p.gather(1, b.action.unsqueeze(-1)).squeeze(-1);
  const torch::Tensor own = b.behaviour.isnan();
  const torch::Tensor ratio =
      torch::where(own, torch::ones_like(b.behaviour), (of_action - b.behaviour).exp())
          .clamp_max(options_.ratio_clip)
          .detach();
  torch::Tensor advantage = b.target - b.baseline;
  torch::Tensor value_loss = torch::zeros({}, b.target.options());
  if (options_.baseline == Baseline::kValue) {
    const torch::Tensor v = value_.values(b);
    advantage = b.target - v.detach();
    value_loss = 0.5 * (v - b.target).square().mean();
  }
  const torch::Tensor finite = log_p.masked_fill(b.mask.logical_not(), 0.0);
  const torch::Tensor entropy =
      -(finite.exp() * finite).masked_fill(b.mask.logical_not(), 0.0).sum(-1).mean();
  return {-(ratio * advantage * of_action).mean(), entropy, value_loss};
}

// Adam, with the constants of its paper; the moments are ours, so that they go into a checkpoint.
double TorchLearner::step() {
  const torch::NoGradGuard guard;
  constexpr double kFirst = 0.9, kSecond = 0.999, kEpsilon = 1e-8;
  double squares = 0;
  for (const auto& [name, tensor] : all_) {
    if (tensor.grad().defined()) squares += tensor.grad().square().sum().item<double>();
  }
  const double norm = std::sqrt(squares);
  const double cut = std::min(1.0, options_.clip_norm / (norm + 1e-12));
  ++updates_;
  const double n = static_cast<double>(updates_);
  const double rate =
      options_.learning_rate * std::sqrt(1 - std::pow(kSecond, n)) / (1 - std::pow(kFirst, n));
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const torch::Tensor& p = all_[i].second;
    if (!p.grad().defined()) continue;
    const torch::Tensor g = p.grad() * cut;
    first_[i].second.mul_(kFirst).add_(g, 1 - kFirst);
    second_[i].second.mul_(kSecond).addcmul_(g, g, 1 - kSecond);
    p.addcdiv_(first_[i].second, second_[i].second.sqrt().add_(kEpsilon), -rate);
    p.mutable_grad().reset();
  }
  move_average();
  return norm;
}

void TorchLearner::begin_average() {
  const torch::NoGradGuard guard;
  for (std::size_t i = 0; i < average_.size(); ++i) {
    average_[i].second.copy_(net_.parameters()[i].second);
  }
}

// At first over few updates, else where it began would weigh on it for long.
void TorchLearner::move_average() {
  constexpr double kYoung = 9;
  const auto n = static_cast<double>(updates_);
  const double keep = std::min(static_cast<double>(options_.averaging), n / (n + kYoung));
  for (std::size_t i = 0; i < average_.size(); ++i) {
    average_[i].second.mul_(keep).add_(net_.parameters()[i].second, 1 - keep);
  }
}

Result<UpdateReport> TorchLearner::update(std::span<const Rollouts> streams) {
  MEMSLOT_TRY(const auto made, rows(streams));
  const Loss loss = loss_of(batch(made));
  const torch::Tensor total = loss.total(beta());
  total.backward();
  UpdateReport report;
  report.loss = total.item<double>() - loss.value.item<double>();
  report.value_loss = loss.value.item<double>();
  report.entropy = loss.entropy.item<double>();
  report.steps = made.size();
  report.gradient_norm = step();
  double episodes = 0, steps = 0;
  for (const Rollouts& rollouts : streams) {
    for (const Episode& episode : rollouts) {
      ++episodes;
      for (const EpisodeStep& s : episode.steps) {
        report.mean_return += s.reward;
        ++steps;
      }
    }
  }
  report.mean_reward = report.mean_return / std::max(steps, 1.0);
  report.mean_return /= std::max(episodes, 1.0);
  return report;
}

Result<UpdateReport> TorchLearner::imitate(std::span<const Episode> episodes) {
  std::vector<Row> made;
  for (const Episode& episode : episodes) {
    MEMSLOT_TRY(check(episode));
    for (const EpisodeStep& s : episode.steps) {
      if (s.trains) made.push_back({&s, true, 1.0f, 0.0f});
    }
  }
  if (made.empty()) return invalid("episodes", "at least one step that trains", "none");
  const Batch b = batch(made);
  const torch::Tensor log_p =
      torch::log_softmax(net_.scores(b.features, b.query, b.keys, b.mask), -1);
  const torch::Tensor total = -log_p.gather(1, b.action.unsqueeze(-1)).mean();
  total.backward();
  UpdateReport report;
  report.loss = total.item<double>();
  report.steps = made.size();
  report.gradient_norm = step();
  return report;
}

Result<std::vector<std::vector<float>>> TorchLearner::log_probs(
    std::span<const EpisodeStep> steps) const {
  std::vector<std::vector<float>> out;
  if (steps.empty()) return out;
  std::vector<Row> made;
  for (const EpisodeStep& step : steps) {
    MEMSLOT_TRY(check_step(step, made.size(), net_.config().features, net_.config().key_dim));
    made.push_back({&step, true, 0.0f, 0.0f});
  }
  const torch::NoGradGuard guard;
  const Batch b = batch(made);
  const torch::Tensor log_p =
      torch::log_softmax(net_.scores(b.features, b.query, b.keys, b.mask), -1)
          .to(torch::kFloat32)
          .contiguous();
  const float* row = log_p.data_ptr<float>();
  for (const EpisodeStep& step : steps) {
    out.emplace_back(row, row + step.candidates);
    row += log_p.size(1);
  }
  return out;
}

Checkpoint TorchLearner::checkpoint(bool with_optimizer) const {
  Checkpoint out = frame_;
  out.feature_version = kFeatureVersion;
  out.scorer = net_.config();
  out.seed = options_.seed;
  out.update = updates_;
  if (!with_optimizer) {
    store(average_.empty() ? net_.parameters() : average_, "scorer.", out.tensors);
    return out;
  }
  store(all_, "", out.tensors);
  store(average_, "average.", out.tensors);
  store(first_, "", out.tensors);
  store(second_, "", out.tensors);
  return out;
}

Result<double> TorchLearner::loss(std::span<const Rollouts> streams) const {
  MEMSLOT_TRY(const auto made, rows(streams));
  return loss_of(batch(made)).total(beta()).item<double>();
}

Result<std::vector<double>> TorchLearner::gradient(std::span<const Rollouts> streams) const {
  MEMSLOT_TRY(const auto made, rows(streams));
  std::vector<torch::Tensor> inputs;
  for (const auto& [name, tensor] : net_.parameters()) inputs.push_back(tensor);
  const auto gradients = torch::autograd::grad({loss_of(batch(made)).total(beta())}, inputs, {},
                                               /*retain_graph=*/false, /*create_graph=*/false,
                                               /*allow_unused=*/true);
  std::vector<double> out;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const torch::Tensor g = gradients[i].defined() ? gradients[i].to(torch::kFloat64).contiguous()
                                                   : torch::zeros_like(inputs[i], torch::kFloat64);
    out.insert(out.end(), g.data_ptr<double>(), g.data_ptr<double>() + g.numel());
  }
  return out;
}

std::vector<double> TorchLearner::parameters() const {
  std::vector<double> out;
  for (const auto& [name, tensor] : net_.parameters()) {
    const torch::Tensor t = tensor.detach().to(torch::kFloat64).contiguous();
    out.insert(out.end(), t.data_ptr<double>(), t.data_ptr<double>() + t.numel());
  }
  return out;
}

void TorchLearner::set_parameters(std::span<const double> values) {
  const torch::NoGradGuard guard;
  std::size_t at = 0;
  for (const auto& [name, tensor] : net_.parameters()) {
    const auto n = static_cast<std::size_t>(tensor.numel());
    MEMSLOT_CHECK(at + n <= values.size());
    auto* from = const_cast<double*>(values.data() + at);  // from_blob reads only
    tensor.copy_(torch::from_blob(from, tensor.sizes(), torch::kFloat64));
    at += n;
  }
}

}  // namespace

Result<std::unique_ptr<ReinforceLearner>> ReinforceLearner::make(ScorerConfig scorer,
                                                                 ReinforceOptions options) {
  if (scorer.features != feature_count()) {
    return mismatch("scorer's features", feature_count(), scorer.features);
  }
  if (options.ratio_clip < 1) {
    return invalid("ratio_clip", "at least 1", std::to_string(options.ratio_clip));
  }
  torch::set_num_threads(1);  // the same bits on every machine with the same code
  return std::unique_ptr<ReinforceLearner>(std::make_unique<TorchLearner>(scorer, options));
}

Result<std::unique_ptr<ReinforceLearner>> ReinforceLearner::resume(const Checkpoint& checkpoint,
                                                                   ReinforceOptions options) {
  if (checkpoint.seed != options.seed) {
    return mismatch("checkpoint's seed", options.seed, checkpoint.seed);
  }
  torch::set_num_threads(1);
  auto learner = std::make_unique<TorchLearner>(checkpoint.scorer, options);
  MEMSLOT_TRY(learner->restore(checkpoint));
  return std::unique_ptr<ReinforceLearner>(std::move(learner));
}

Result<std::unique_ptr<ReinforceLearner>> ReinforceLearner::go_on_from(const Checkpoint& published,
                                                                       ReinforceOptions options) {
  options.seed = published.seed;
  torch::set_num_threads(1);
  auto learner = std::make_unique<TorchLearner>(published.scorer, options);
  MEMSLOT_TRY(learner->take_scorer(published));
  return std::unique_ptr<ReinforceLearner>(std::move(learner));
}

}  // namespace memslot
