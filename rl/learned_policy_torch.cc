#include <algorithm>
#include <cmath>

#include "rl/features.h"
#include "rl/reinforce.h"
#include "rl/scorer_torch.h"
#include "shared/base/log.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

class LearnedPolicy final : public SelectionPolicy {
 public:
  LearnedPolicy(ScorerNet net, std::string digest)
      : net_(std::move(net)), digest_(std::move(digest)) {}
  std::string_view name() const override { return "learned"; }
  std::string_view digest() const override { return digest_; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override;

 private:
  std::vector<float> scores(const StepContext& step, std::span<const Candidate> candidates) const;

  ScorerNet net_;
  std::string digest_;
};

// Empty where a number is not finite.
std::vector<float> LearnedPolicy::scores(const StepContext& step,
                                         std::span<const Candidate> candidates) const {
  const auto k = static_cast<std::int64_t>(candidates.size());
  const std::int64_t f = net_.config().features, r = net_.config().key_dim;
  std::vector<float> features;
  append_features(step, candidates, features);
  std::vector<float> query(static_cast<std::size_t>(r), 0.0f);
  std::vector<float> keys(static_cast<std::size_t>(k * r), 0.0f);
  if (step.query.size() == query.size()) {
    std::copy(step.query.begin(), step.query.end(), query.begin());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].key.size() != query.size()) continue;
      std::copy(candidates[i].key.begin(), candidates[i].key.end(),
                keys.begin() + static_cast<std::ptrdiff_t>(i * query.size()));
    }
  }
  if (!all_finite(features) || !all_finite(query) || !all_finite(keys)) return {};
  const c10::InferenceMode guard;
  const auto f32 = torch::TensorOptions(torch::kFloat32);
  const torch::Tensor out =
      net_.scores(torch::from_blob(features.data(), {1, k, f}, f32),
                  torch::from_blob(query.data(), {1, r}, f32),
                  torch::from_blob(keys.data(), {1, k, r}, f32), torch::ones({1, k}, torch::kBool));
  const float* values = out.data_ptr<float>();
  return {values, values + k};
}

Choice LearnedPolicy::choose(const StepContext& step, std::span<const Candidate> candidates) const {
  MEMSLOT_CHECK(!candidates.empty() && candidates[0].is_base);
  Choice choice;
  choice.scores = scores(step, candidates);
  if (choice.scores.empty()) {
    log::warn("session {:x} step {}: a feature is not finite: what is active stays", step.session,
              step.step);
    choice.scores.assign(candidates.size(), 0.0f);
    choice.index = current_of(candidates);
    return choice;
  }
  const auto top = std::max_element(choice.scores.begin(), choice.scores.end());
  double sum = 0;
  for (const float s : choice.scores) sum += std::exp(static_cast<double>(s - *top));
  choice.index = static_cast<std::size_t>(top - choice.scores.begin());
  if (step.explore) {
    double left = sum * uniform01(step.seed, step.session, step.step);
    for (std::size_t i = 0; i < choice.scores.size(); ++i) {
      choice.index = i;
      left -= std::exp(static_cast<double>(choice.scores[i] - *top));
      if (left < 0) break;
    }
  }
  choice.log_prob =
      static_cast<float>(static_cast<double>(choice.scores[choice.index] - *top) - std::log(sum));
  return choice;
}

}  // namespace

Result<std::shared_ptr<const SelectionPolicy>> make_learned_policy(const Checkpoint& checkpoint) {
  torch::set_num_threads(1);  // one decision is too small for two
  ScorerNet net(checkpoint.scorer, checkpoint.seed, torch::kFloat32);
  MEMSLOT_TRY(load(checkpoint.tensors, "scorer.", net.parameters()));
  return std::shared_ptr<const SelectionPolicy>(
      std::make_shared<LearnedPolicy>(std::move(net), checkpoint.digest()));
}

}  // namespace memslot
