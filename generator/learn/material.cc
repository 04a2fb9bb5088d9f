#include "generator/learn/material.h"

#include <algorithm>

namespace memslot {
namespace {

constexpr std::int64_t kReadTokens = 32;    // of one forward call: a slice of the compute gate
constexpr std::int64_t kMeasureRows = 512;  // of one group

Status read_sequence(Gpt& gpt, std::size_t slot, std::span<const std::int32_t> tokens,
                     Matrix residual, GateSlices& gate) {
  const std::int64_t count = std::ssize(tokens);
  MEMSLOT_TRY(KvCache kv, gpt.make_kv(count));
  for (std::int64_t at = 0; at < count; at += kReadTokens) {
    const std::int64_t n = std::min(kReadTokens, count - at);
    Sequence sequence;
    sequence.tokens = tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
    sequence.kv = &kv;
    sequence.memories.assign(gpt.options().slot_layers.size(), "");
    MEMSLOT_TRY(gpt.forward({&sequence, 1}, Matrix{}, /*last_only=*/true));
    gate.breathe();
  }
  gpt.backend().copy(kv.slot_residual(slot).slice_rows(0, count), residual);
  return ok();
}

}  // namespace

Matrix Material::residual_rows(std::int64_t first, std::int64_t count) const {
  return Matrix{residual.data(), DType::kF32, rows, d_model, d_model}.slice_rows(first, count);
}

Matrix Material::input_rows(std::int64_t first, std::int64_t count) const {
  return Matrix{input.data(), dtype, rows, d_model, d_model}.slice_rows(first, count);
}

Result<Material> Material::read(Gpt& gpt, std::size_t slot,
                                std::vector<std::vector<std::int32_t>> tokens, GateSlices& gate) {
  Material m;
  m.tokens = std::move(tokens);
  m.d_model = gpt.config().d_model;
  m.dtype = gpt.activation_dtype();
  for (const auto& sequence : m.tokens) m.rows += std::ssize(sequence);
  const auto elements = static_cast<std::size_t>(m.rows * m.d_model);
  MEMSLOT_TRY(m.residual, gpt.backend().alloc(std::max<std::size_t>(1, elements * sizeof(float))));
  MEMSLOT_TRY(m.input,
              gpt.backend().alloc(std::max<std::size_t>(1, elements * dtype_size(m.dtype))));
  std::int64_t row = 0;
  for (const auto& sequence : m.tokens) {
    const std::int64_t count = std::ssize(sequence);
    MEMSLOT_TRY(read_sequence(gpt, slot, sequence, m.residual_rows(row, count), gate));
    row += count;
  }
  const LayerWeights& w = gpt.layer(gpt.options().slot_layers.at(slot));
  gpt.norm(m.residual_rows(0, m.rows), w.mlp_norm, w.mlp_norm_bias, m.input_rows(0, m.rows));
  return m;
}

LossRows all_rows(const Material& material, std::size_t first, std::size_t count) {
  LossRows rows;
  for (std::size_t s = first; s < first + count; ++s) {
    const auto& tokens = material.tokens[s];
    rows.lengths.push_back(std::ssize(tokens));
    rows.targets.insert(rows.targets.end(), tokens.begin() + 1, tokens.end());
    rows.targets.push_back(-1);  // nothing follows the last token
  }
  const auto counted = std::ranges::count_if(rows.targets, [](std::int32_t t) { return t >= 0; });
  rows.weights.assign(rows.targets.size(),
                      counted == 0 ? 0.0f : 1.0f / static_cast<float>(counted));
  return rows;
}

Result<RowLosses> measure(const Material& material, std::size_t sequences, UpperStack& stack,
                          Gpt& gpt, const SlotOutput& output, GateSlices& gate) {
  MEMSLOT_CHECK(sequences <= material.tokens.size());
  RowLosses all;
  std::int64_t row = 0;
  for (std::size_t s = 0; s < sequences;) {
    std::size_t count = 0;
    std::int64_t rows = 0;
    do {  // at least one sequence, however long
      rows += std::ssize(material.tokens[s + count++]);
    } while (s + count < sequences &&
             rows + std::ssize(material.tokens[s + count]) <= kMeasureRows);
    MEMSLOT_TRY(stack.reserve(rows));
    const auto bytes = static_cast<std::size_t>(rows * material.d_model) * sizeof(float);
    MEMSLOT_TRY(const Buffer x_buffer, gpt.backend().alloc(bytes));
    const Matrix x{x_buffer.data(), DType::kF32, rows, material.d_model, material.d_model};
    output(material.input_rows(row, rows), x);
    gate.breathe();
    gpt.backend().add(material.residual_rows(row, rows), 1.0f, x);
    RowLosses part;
    stack.losses(x, all_rows(material, s, count), part, gate);
    all.nll.insert(all.nll.end(), part.nll.begin(), part.nll.end());
    all.argmax.insert(all.argmax.end(), part.argmax.begin(), part.argmax.end());
    row += rows;
    s += count;
  }
  return all;
}

double mean_nll(const RowLosses& losses, std::size_t sequences) {
  double sum = 0;
  for (const float nll : losses.nll) sum += double{nll};
  const auto counted =
      std::ssize(losses.nll) - static_cast<std::int64_t>(sequences);  // a last row has no next
  return counted > 0 ? sum / static_cast<double>(counted) : 0;
}

double recall(std::span<const std::int32_t> tokens, std::span<const std::int32_t> argmax,
              std::int64_t first_target) {
  std::int64_t right = 0, all = 0;
  for (std::int64_t t = std::max<std::int64_t>(1, first_target); t < std::ssize(tokens); ++t) {
    ++all;
    if (argmax[static_cast<std::size_t>(t - 1)] == tokens[static_cast<std::size_t>(t)]) ++right;
  }
  return all == 0 ? 0 : static_cast<double>(right) / static_cast<double>(all);
}

}  // namespace memslot
