#include "rl/scorer_torch.h"

#include <cmath>

#include "rl/features.h"
#include "shared/base/rng.h"

namespace memslot {

ScorerNet::ScorerNet(ScorerConfig config, std::uint64_t seed, torch::Dtype dtype)
    : config_(config), seed_(seed), dtype_(dtype) {
  const std::int64_t inputs = static_cast<std::int64_t>(config.features) + 1;
  const std::int64_t hidden = config.hidden, rank = config.rank, r = config.key_dim;
  const auto limit = [](std::int64_t fan_in) {
    return 1.0 / std::sqrt(static_cast<double>(fan_in));
  };
  tau_ = add("tau", {1}, 0);
  u_ = add("u", {rank, r}, 0);
  v_ = add("v", {rank, r}, r == 0 ? 0 : limit(r));
  w1_ = add("w1", {hidden, inputs}, limit(inputs));
  b1_ = add("b1", {hidden}, 0);
  w2_ = add("w2", {hidden, hidden}, limit(hidden));
  b2_ = add("b2", {hidden}, 0);
  w3_ = add("w3", {1, hidden}, limit(hidden));
  b3_ = add("b3", {1}, 0);
  const torch::NoGradGuard guard;
  tau_.fill_(1.0);
  if (config.features != feature_count()) return;  // not over the feature table (the value net)
  const auto table = feature_table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].live) w1_.select(1, static_cast<std::int64_t>(i)).zero_();
  }
}

torch::Tensor ScorerNet::add(const std::string& name, std::vector<std::int64_t> shape,
                             double limit) {
  torch::Tensor tensor = torch::zeros(shape, torch::kFloat64);
  auto* values = tensor.data_ptr<double>();
  const auto stream = static_cast<std::uint64_t>(parameters_.size());
  for (std::int64_t i = 0; limit > 0 && i < tensor.numel(); ++i) {
    values[i] = limit * (2 * uniform01(seed_, stream, static_cast<std::uint64_t>(i)) - 1);
  }
  // Rounded to what a checkpoint holds.
  tensor = tensor.to(torch::kFloat32).to(dtype_).set_requires_grad(true);
  parameters_.emplace_back(name, tensor);
  return tensor;
}

torch::Tensor ScorerNet::scores(const torch::Tensor& features, const torch::Tensor& query,
                                const torch::Tensor& keys, const torch::Tensor& mask) const {
  // q^T k + (U q)^T (V k)
  const torch::Tensor q = query.unsqueeze(-1);                  // (B, R, 1)
  torch::Tensor match = keys.matmul(q).squeeze(-1);             // (B, K)
  const torch::Tensor uq = query.matmul(u_.t()).unsqueeze(-1);  // (B, rank, 1)
  match = tau_ * (match + keys.matmul(v_.t()).matmul(uq).squeeze(-1));
  const torch::Tensor x = torch::cat({features, match.unsqueeze(-1)}, -1);  // (B, K, F + 1)
  torch::Tensor h = torch::tanh(torch::matmul(x, w1_.t()) + b1_);
  h = torch::tanh(torch::matmul(h, w2_.t()) + b2_);
  const torch::Tensor s = (torch::matmul(h, w3_.t()) + b3_).squeeze(-1);
  return s.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
}

void store(const NamedTensors& from, const std::string& prefix,
           std::map<std::string, HostTensor>& to) {
  for (const auto& [name, tensor] : from) {
    const torch::Tensor dense = tensor.detach().to(torch::kFloat32).contiguous();
    const auto made = Shape::make({dense.sizes().data(), dense.sizes().size()});
    MEMSLOT_CHECK(made);
    const float* values = dense.data_ptr<float>();
    to[prefix + name] = {made.value(), std::vector<float>(values, values + dense.numel())};
  }
}

Status load(const std::map<std::string, HostTensor>& from, const std::string& prefix,
            const NamedTensors& to) {
  const torch::NoGradGuard guard;
  for (const auto& [name, tensor] : to) {
    const auto found = from.find(prefix + name);
    if (found == from.end()) return corrupt("checkpoint tensor", prefix + name, "none");
    const HostTensor& host = found->second;
    const auto expected = Shape::make({tensor.sizes().data(), tensor.sizes().size()});
    MEMSLOT_CHECK(expected);
    if (host.shape != expected.value()) {
      return memslot::mismatch("checkpoint tensor " + prefix + name, expected.value().text(),
                               host.shape.text());
    }
    // from_blob reads only.
    auto* values = const_cast<float*>(host.values.data());
    tensor.copy_(torch::from_blob(values, tensor.sizes(), torch::kFloat32));
  }
  return ok();
}

}  // namespace memslot
