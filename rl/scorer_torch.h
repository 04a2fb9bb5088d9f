#pragma once
// The scorer as a torch module; the formula is in scorer_config.h. Only rl/*_torch.* may include
// it.
//
// Threads: const calls from any thread, without gradients.
#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "rl/checkpoint.h"

namespace memslot {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

class ScorerNet {
 public:
  // Uniform in +-sqrt(1 / inputs), from counters of (seed, tensor, element), but for the prior.
  ScorerNet(ScorerConfig config, std::uint64_t seed, torch::Dtype dtype, ScorerPrior prior = {});

  // features (B, K, F), query (B, R), keys (B, K, R), mask (B, K) of bool: true where there is a
  // candidate. Scores (B, K), -infinity where there is none.
  torch::Tensor scores(const torch::Tensor& features, const torch::Tensor& query,
                       const torch::Tensor& keys, const torch::Tensor& mask) const;

  const NamedTensors& parameters() const { return parameters_; }
  const ScorerConfig& config() const { return config_; }

 private:
  torch::Tensor add(const std::string& name, std::vector<std::int64_t> shape, double limit);
  void begin_with(ScorerPrior prior);

  ScorerConfig config_;
  std::uint64_t seed_;
  torch::Dtype dtype_;
  NamedTensors parameters_;
  torch::Tensor tau_, u_, v_, w1_, b1_, w2_, b2_, w3_, b3_, linear_;
};

// Copies between tensors and a checkpoint, names with `prefix`. load(): kMismatch (shape),
// kCorruption (missing).
void store(const NamedTensors& from, const std::string& prefix,
           std::map<std::string, HostTensor>& to);
Status load(const std::map<std::string, HostTensor>& from, const std::string& prefix,
            const NamedTensors& to);

}  // namespace memslot
