#include "generator/gains/gain_scorer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace memslot {
namespace {

Status check_text(const ModelConfig& config, std::span<const std::int32_t> ids,
                  std::span<const std::int32_t> steps) {
  if (ids.size() < 2) return invalid("text", "at least 2 tokens", ids.size());
  if (std::ssize(ids) > config.context) {
    return invalid("text", "at most " + std::to_string(config.context) + " tokens (the context)",
                   ids.size());
  }
  if (steps.empty()) return invalid("steps", "at least one", "none");
  std::int64_t covered = 0;
  for (const std::int32_t step : steps) {
    if (step < 1) return invalid("tokens of a step", "at least 1", step);
    covered += step;
  }
  if (covered != std::ssize(ids) - 1) {
    return invalid("tokens of all steps", std::to_string(ids.size() - 1) + " (all but the first)",
                   covered);
  }
  return ok();
}

// Mean over each step of what its rows have.
std::vector<float> step_means(std::span<const float> values, std::span<const std::int32_t> steps) {
  std::vector<float> out;
  auto at = values.begin();
  for (const std::int32_t count : steps) {
    out.push_back(static_cast<float>(std::accumulate(at, at + count, 0.0) / count));
    at += count;
  }
  return out;
}

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

GainScorer::GainScorer(Gpt& gpt, std::size_t slot)
    : gpt_(&gpt),
      slot_(slot),
      runner_(gpt, slot),
      upper_(gpt, gpt.options().slot_layers.at(slot)) {}

Result<GainScorer> GainScorer::read(Gpt& gpt, std::size_t slot, std::vector<std::int32_t> ids,
                                    std::vector<std::int32_t> steps, GateSlices& gate) {
  MEMSLOT_CHECK(slot < gpt.options().slot_layers.size());
  MEMSLOT_TRY(check_text(gpt.config(), ids, steps));
  GainScorer scorer(gpt, slot);
  scorer.steps_ = std::move(steps);
  scorer.targets_.assign(ids.begin() + 1, ids.end());
  // The last target is checked with the rest, though the model never reads it.
  const std::int32_t vocab = gpt.config().vocab;
  if (scorer.targets_.back() < 0 || scorer.targets_.back() >= vocab) {
    return invalid("token id", "0 to " + std::to_string(vocab - 1), scorer.targets_.back());
  }
  ids.pop_back();  // nothing is predicted after it
  MEMSLOT_TRY(scorer.material_, Material::read(gpt, slot, {std::move(ids)}, gate));
  scorer.batch_ = std::max<std::int64_t>(1, kBatchRows / scorer.rows());
  MEMSLOT_TRY(scorer.upper_.reserve(scorer.batch_, scorer.rows()));
  scorer.keep_hidden();
  scorer.keep_base(gate);
  return scorer;
}

void GainScorer::keep_hidden() {
  const std::int64_t d = material_.d_model;
  const Matrix x = material_.input_rows(0, rows());
  std::int64_t row = 0;
  for (const std::int32_t count : steps_) {
    std::vector<double> sum(static_cast<std::size_t>(d), 0.0);
    const std::int64_t first = std::max<std::int64_t>(row, 1), last = row + count;
    for (std::int64_t r = first; r < last; ++r) {
      for (std::int64_t i = 0; i < d; ++i) {
        const float v = x.dtype == DType::kBF16 ? bf16_to_f32(x.bf16()[r * x.stride + i])
                                                : x.f32()[r * x.stride + i];
        sum[static_cast<std::size_t>(i)] += static_cast<double>(v);
      }
    }
    const auto n = static_cast<double>(std::max<std::int64_t>(last - first, 1));
    for (const double s : sum) hidden_.push_back(static_cast<float>(s / n));
    row += count;
  }
}

void GainScorer::keep_base(GateSlices& gate) {
  base_.resize(static_cast<std::size_t>(rows() * material_.d_model));
  const Matrix y{base_.data(), DType::kF32, rows(), material_.d_model, material_.d_model};
  runner_.activate(nullptr);
  for (std::int64_t row = 0; row < rows(); row += UpperLayers::kChunkRows) {
    const std::int64_t n = std::min(UpperLayers::kChunkRows, rows() - row);
    runner_.forward({slot_, row, material_.input_rows(row, n), y.slice_rows(row, n)});
    gate.breathe();
  }
}

// x = the residual stream behind the slot; `activation`: a row's distance from base, appended.
void GainScorer::run_slot(const std::shared_ptr<const LoadedMemory>& memory, Matrix x,
                          std::vector<float>& activation, GateSlices& gate) {
  const std::int64_t d = material_.d_model;
  runner_.activate(memory);
  for (std::int64_t row = 0; row < rows(); row += UpperLayers::kChunkRows) {
    const std::int64_t n = std::min(UpperLayers::kChunkRows, rows() - row);
    const Matrix y = x.slice_rows(row, n);
    runner_.forward({slot_, row, material_.input_rows(row, n), y});
    for (std::int64_t r = 0; r < n; ++r) {
      const float* with = y.f32() + r * y.stride;
      const float* base = base_.data() + (row + r) * d;
      double squares = 0;
      for (std::int64_t i = 0; i < d; ++i) {
        const double by = static_cast<double>(with[i]) - static_cast<double>(base[i]);
        squares += by * by;
      }
      activation.push_back(static_cast<float>(std::sqrt(squares)));
    }
    gate.breathe();
  }
  // The model adds the slot's answer to the residual stream; the sum of two is the same either way.
  gpt_->backend().add(material_.residual_rows(0, rows()), 1.0f, x);
}

Result<std::vector<GainFigures>> GainScorer::score(
    std::span<const std::shared_ptr<const LoadedMemory>> candidates, GateSlices& gate) {
  const std::int64_t readings = std::ssize(candidates), length = rows();
  MEMSLOT_CHECK(readings > 0 && readings <= batch_);
  const Matrix x = upper_.input(readings, length);
  std::vector<std::vector<float>> activations(candidates.size());
  for (std::int64_t r = 0; r < readings; ++r) {
    const auto i = static_cast<std::size_t>(r);
    run_slot(candidates[i], x.slice_rows(r * length, length), activations[i], gate);
  }
  runner_.activate(nullptr);  // what was scored may be evicted
  std::vector<SoftmaxRow> sums(static_cast<std::size_t>(readings * length));
  upper_.run(readings, targets_, sums, gate);
  std::vector<GainFigures> out(candidates.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::vector<float> entropy;
    for (std::size_t row = 0; row < targets_.size(); ++row) {
      const SoftmaxRow& s = sums[i * targets_.size() + row];
      out[i].token_nll.push_back(s.nll());
      entropy.push_back(s.entropy());
    }
    if (!all_finite(out[i].token_nll) || !all_finite(entropy) || !all_finite(activations[i])) {
      return corrupt("figures of " + (candidates[i] ? candidates[i]->ref().text() : "base"),
                     "finite numbers", "NaN or infinity");
    }
    out[i].surprise = step_means(out[i].token_nll, steps_);
    out[i].entropy = step_means(entropy, steps_);
    out[i].activation = step_means(activations[i], steps_);
  }
  return out;
}

std::size_t GainScorer::bytes() const {
  return material_.bytes() + (base_.size() + hidden_.size()) * sizeof(float) + upper_.bytes();
}

}  // namespace memslot
