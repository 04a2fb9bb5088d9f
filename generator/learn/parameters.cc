#include <cmath>

#include "generator/learn/trainer.h"
#include "shared/base/rng.h"

namespace memslot {

std::size_t ParameterSet::add(std::int64_t rows, std::int64_t cols, std::span<const float> values) {
  MEMSLOT_CHECK(std::ssize(values) == rows * cols);
  parts_.push_back({rows, cols, weight.size()});
  weight.insert(weight.end(), values.begin(), values.end());
  for (auto* other : {&gradient, &m, &v}) other->resize(weight.size(), 0.0f);
  return parts_.size() - 1;
}

std::span<const float> ParameterSet::values(std::size_t i) const {
  const Part& p = parts_.at(i);
  return std::span(weight).subspan(p.offset, static_cast<std::size_t>(p.rows * p.cols));
}

Matrix ParameterSet::gradient_of(std::size_t i) {
  const Part& p = parts_.at(i);
  return {gradient.data() + p.offset, DType::kF32, p.rows, p.cols, p.cols};
}

Result<MlpValues> base_mlp_values(const ModelFile& file, int layer) {
  using Role = TensorRole;
  const auto take = [&](Role role, std::vector<float>& to) -> Status {
    MEMSLOT_TRY(HostTensor tensor, file.tensor(role, layer));
    to = std::move(tensor.values);
    return ok();
  };
  MlpValues values;
  if (file.config().mlp_form == MlpForm::kSwiGlu) {
    MEMSLOT_TRY(take(Role::kGate, values.gate));
  } else {
    MEMSLOT_TRY(take(Role::kUpBias, values.up_bias));
    MEMSLOT_TRY(take(Role::kDownBias, values.down_bias));
  }
  MEMSLOT_TRY(take(Role::kUp, values.up));
  MEMSLOT_TRY(take(Role::kDown, values.down));
  return values;
}

LoraValues fresh_lora(const ModelConfig& config, std::int64_t rank, double alpha,
                      std::uint64_t seed) {
  const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const auto draw = [&](std::int64_t inputs, std::int64_t outputs, std::uint64_t stream) {
    LoraValues::Map map;
    map.a.resize(count(rank * inputs));
    map.b.resize(count(outputs * rank));
    const double bound = 1.0 / std::sqrt(static_cast<double>(inputs));
    for (std::size_t i = 0; i < map.a.size(); ++i) {
      map.a[i] = static_cast<float>(bound * (2 * uniform01(seed, stream, i) - 1));
    }
    return map;
  };
  LoraValues values;
  values.rank = rank;
  values.alpha = alpha;
  if (config.mlp_form == MlpForm::kSwiGlu) values.gate = draw(config.d_model, config.d_ff, 1);
  values.up = draw(config.d_model, config.d_ff, 2);
  values.down = draw(config.d_ff, config.d_model, 3);
  return values;
}

}  // namespace memslot
