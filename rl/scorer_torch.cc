#include "rl/scorer_torch.h"

#include <cmath>

#include "rl/features.h"
#include "rl/small_gemm.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// a (n, k) b (k, m); `a` may be a transposed view.
template <class T>
torch::Tensor product_as(const torch::Tensor& a, const torch::Tensor& b) {
  const std::int64_t n = a.size(0), k = a.size(1), m = b.size(1);
  const torch::Tensor dense = b.contiguous();
  torch::Tensor out = torch::empty({n, m}, b.options());
  small_gemm(n, k, m, Strided<T>{a.data_ptr<T>(), a.stride(0), a.stride(1)}, dense.data_ptr<T>(),
             out.data_ptr<T>());
  return out;
}

torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == torch::kFloat64 ? product_as<double>(a, b) : product_as<float>(a, b);
}

// y = x w^T for x (..., k), w (m, k), as torch's linear; on small_gemm.
class TimesTransposed : public torch::autograd::Function<TimesTransposed> {
 public:
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x,
                               const torch::Tensor& w) {
    const torch::Tensor rows = x.flatten(0, -2).contiguous();
    ctx->save_for_backward({rows, w});
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = w.size(0);
    return product(rows, w.t()).reshape(shape);
  }
  static tensor_list backward(AutogradContext* ctx, const tensor_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &x = saved[0], &w = saved[1];
    const torch::Tensor g = gradients[0].flatten(0, -2).contiguous();
    torch::Tensor to_x;
    if (ctx->needs_input_grad(0)) {
      std::vector<std::int64_t> shape = gradients[0].sizes().vec();
      shape.back() = w.size(1);
      to_x = product(g, w).reshape(shape);
    }
    return {to_x, product(g.t(), x)};
  }
};

torch::Tensor times_transposed(const torch::Tensor& x, const torch::Tensor& w) {
  // Without gradients there is nothing to keep, and a graph cannot be made in inference mode.
  if (torch::GradMode::is_enabled() && !c10::InferenceMode::is_enabled()) {
    return TimesTransposed::apply(x, w);
  }
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = w.size(0);
  return product(x.flatten(0, -2).contiguous(), w.t()).reshape(shape);
}

}  // namespace

ScorerNet::ScorerNet(ScorerConfig config, std::uint64_t seed, torch::Dtype dtype, ScorerPrior prior)
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
  linear_ = add("linear", {inputs - 1}, 0);
  const torch::NoGradGuard guard;
  tau_.fill_(1.0);
  if (config.features != feature_count()) return;  // not over the feature table (the value net)
  const auto table = feature_table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].live) w1_.select(1, static_cast<std::int64_t>(i)).zero_();
  }
  if (prior.sharpness > 0) begin_with(prior);
}

void ScorerNet::begin_with(ScorerPrior prior) {
  w3_.zero_();
  const auto table = feature_table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    if (table[i].name == "best_key") linear_[at] = prior.sharpness;
    if (table[i].name == "is_base") linear_[at] = prior.sharpness * prior.threshold;
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
  torch::Tensor match = (keys * query.unsqueeze(1)).sum(-1);          // (B, K)
  const torch::Tensor uq = times_transposed(query, u_).unsqueeze(1);  // (B, 1, rank)
  match = tau_ * (match + (times_transposed(keys, v_) * uq).sum(-1));
  const torch::Tensor x = torch::cat({features, match.unsqueeze(-1)}, -1);  // (B, K, F + 1)
  torch::Tensor h = torch::tanh(times_transposed(x, w1_) + b1_);
  h = torch::tanh(times_transposed(h, w2_) + b2_);
  const torch::Tensor s = (h * w3_.squeeze(0)).sum(-1) + b3_ + (features * linear_).sum(-1);
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
