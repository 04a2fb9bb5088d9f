#pragma once
// Checkpoints for the tests' slots, and an engine that runs them without libtorch: the score of a
// memory is `sharpness` times its mean key's cosine, base's is 0.
#include <cmath>

#include "rl/features.h"
#include "rl/policy_engine.h"
#include "shared/base/rng.h"
#include "tests/controller/memories.h"

namespace memslot {

class CosinePolicy final : public SelectionPolicy {
 public:
  CosinePolicy(float sharpness, std::string digest)
      : sharpness_(sharpness), digest_(std::move(digest)) {}
  std::string_view name() const override { return "learned"; }
  std::string_view digest() const override { return digest_; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override {
    Choice out;
    double sum = 0;
    for (const Candidate& c : candidates) {
      out.scores.push_back(c.is_base ? 0.0f : sharpness_ * c.mean_key);
      sum += std::exp(static_cast<double>(out.scores.back()));
    }
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (out.scores[i] > out.scores[out.index]) out.index = i;
    }
    if (step.explore) {
      double left = sum * uniform01(step.seed, step.session, step.step);
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        out.index = i;
        left -= std::exp(static_cast<double>(out.scores[i]));
        if (left < 0) break;
      }
    }
    out.log_prob = static_cast<float>(static_cast<double>(out.scores[out.index]) - std::log(sum));
    return out;
  }

 private:
  float sharpness_;
  std::string digest_;
};

inline PolicyEngine cosine_engine() {
  return {.make_policy = [](const Checkpoint& c) -> Result<std::shared_ptr<const SelectionPolicy>> {
            const auto found = c.tensors.find("scorer.sharpness");
            if (found == c.tensors.end()) return corrupt("checkpoint", "scorer.sharpness", "none");
            return std::shared_ptr<const SelectionPolicy>(
                std::make_shared<CosinePolicy>(found->second.values[0], c.digest()));
          },
          .go_on_from = {}};
}

// Fitted on keys of its own: another space than the bank's own statistics.
inline Checkpoint cosine_checkpoint(float sharpness, unsigned seed = 1, int dim = kDim) {
  std::mt19937 rng(seed);
  std::vector<float> rows;
  for (unsigned i = 0; i < 12; ++i) {
    const auto keys = keys_around(centre_of(i, dim), 4, 0.2f, rng);
    rows.insert(rows.end(), keys.begin(), keys.end());
  }
  Checkpoint out;
  out.feature_version = kFeatureVersion;
  out.whitening = Whitening::fit(rows, static_cast<std::uint32_t>(dim), 1);
  out.scorer = {
      .features = feature_count(), .key_dim = out.whitening.reduced_dim(), .rank = 1, .hidden = 1};
  out.task.model = slot_signature().model.hex();
  out.task.layer = 3;
  out.tensors["scorer.sharpness"] = {Shape{1}, {sharpness}};
  return out;
}

}  // namespace memslot
