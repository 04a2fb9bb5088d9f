#include "generator/gains/upper_layers.h"

#include <algorithm>
#include <cstring>  // memset
#include <utility>

namespace memslot {
namespace {

enum Place : std::size_t {
  kX,
  kNormed,
  kQkv,
  kAttended,
  kWide,
  kGated,
  kKv,
  kHidden,
  kLogits,
  kSlotOut
};

const float* floats(const Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

std::int64_t padded(std::int64_t rows) {
  return (rows + UpperLayers::kRowBlock - 1) / UpperLayers::kRowBlock * UpperLayers::kRowBlock;
}

void zero_from(Matrix m, std::int64_t row) {
  const Matrix rest = m.slice_rows(row, m.rows - row);
  std::memset(rest.data, 0,
              static_cast<std::size_t>(rest.rows * rest.stride) * dtype_size(m.dtype));
}

// fn(rows [first, first + count)) for the chunks of x.
template <class Fn>
void in_chunks(std::int64_t rows, GateSlices& gate, Fn&& fn) {
  for (std::int64_t first = 0; first < rows; first += UpperLayers::kChunkRows) {
    fn(first, std::min(UpperLayers::kChunkRows, rows - first));
    gate.breathe();
  }
}

}  // namespace

Status UpperLayers::reserve(std::int64_t readings, std::int64_t length) {
  const ModelConfig& c = gpt_.config();
  const DType act = gpt_.activation_dtype(), f32 = DType::kF32;
  const std::int64_t rows = padded(readings * length), chunk = std::min(rows, kChunkRows);
  const std::int64_t qkv = c.q_width() + 2 * c.kv_width();
  MEMSLOT_TRY(space_.reserve(kX, f32, rows, c.d_model));
  MEMSLOT_TRY(space_.reserve(kNormed, act, chunk, c.d_model));
  MEMSLOT_TRY(space_.reserve(kQkv, f32, rows, qkv));
  MEMSLOT_TRY(space_.reserve(kAttended, act, rows, c.q_width()));
  MEMSLOT_TRY(space_.reserve(kWide, f32, chunk, c.mlp_width()));
  MEMSLOT_TRY(space_.reserve(kGated, act, chunk, c.d_ff));
  MEMSLOT_TRY(space_.reserve(kKv, act, 2 * readings * length, c.kv_width()));
  MEMSLOT_TRY(space_.reserve(kHidden, act, rows, c.d_model));
  MEMSLOT_TRY(space_.reserve(kSlotOut, f32, chunk, c.d_model));
  const std::int64_t outputs = std::min<std::int64_t>(kBlockOutputs, c.vocab);
  MEMSLOT_TRY(space_.reserve(kLogits, f32, chunk, outputs));
  return output_.empty() ? slice_output() : ok();
}

Status UpperLayers::slice_output() {
  const std::int64_t vocab = gpt_.config().vocab;
  for (std::int64_t first = 0; first < vocab; first += kBlockOutputs) {
    OutputBlock block{first, nullptr};
    MEMSLOT_TRY(block.map, gpt_.backend().slice_outputs(gpt_.output(), first,
                                                        std::min(kBlockOutputs, vocab - first)));
    output_.push_back(std::move(block));
  }
  return ok();
}

Matrix UpperLayers::input(std::int64_t readings, std::int64_t length) const {
  return space_.matrix(kX, DType::kF32, padded(readings * length), gpt_.config().d_model);
}

// All readings share one key/value buffer, cut by rows; every layer overwrites it.
std::vector<AttentionSpan> UpperLayers::spans(std::int64_t readings, std::int64_t length) const {
  const DType dtype = gpt_.activation_dtype();
  const std::size_t bytes =
      static_cast<std::size_t>(length * gpt_.config().kv_width()) * dtype_size(dtype);
  auto* at = static_cast<std::byte*>(space_.data(kKv));
  std::vector<AttentionSpan> out;
  for (std::int64_t r = 0; r < readings; ++r, at += 2 * bytes) {
    out.push_back({r * length, length, 0, {at, at + bytes, dtype, length}});
  }
  return out;
}

void UpperLayers::attend(int layer, Matrix x, const std::vector<AttentionSpan>& parts,
                         GateSlices& gate) {
  Backend& backend = gpt_.backend();
  const ModelConfig& c = gpt_.config();
  const LayerWeights& w = gpt_.layer(layer);
  const DType act = gpt_.activation_dtype();
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim};
  const float theta = c.family == ModelConfig::Family::kLlama ? c.rope_theta : 0.0f;
  const Matrix qkv = space_.matrix(kQkv, DType::kF32, x.rows, c.q_width() + 2 * c.kv_width());
  const Matrix attended = space_.matrix(kAttended, act, x.rows, c.q_width());
  in_chunks(x.rows, gate, [&](std::int64_t first, std::int64_t count) {
    const Matrix normed = space_.matrix(kNormed, act, count, c.d_model);
    gpt_.norm(x.slice_rows(first, count), w.attn_norm, w.attn_norm_bias, normed);
    backend.linear(normed, *w.qkv, qkv.slice_rows(first, count), floats(w.qkv_bias),
                   /*accumulate=*/false);
  });
  for (const AttentionSpan& part : parts) {
    backend.rope_store(qkv, shape, theta, {&part, 1});
    backend.attention(qkv, shape, {&part, 1}, attended);
    gate.breathe();
  }
  in_chunks(x.rows, gate, [&](std::int64_t first, std::int64_t count) {
    backend.linear(attended.slice_rows(first, count), *w.attn_out, x.slice_rows(first, count),
                   floats(w.attn_out_bias), /*accumulate=*/true);
  });
}

void UpperLayers::feed_forward(int layer, Matrix x, GateSlices& gate) {
  Backend& backend = gpt_.backend();
  const ModelConfig& c = gpt_.config();
  const LayerWeights& w = gpt_.layer(layer);
  const DType act = gpt_.activation_dtype();
  const auto& slots = gpt_.options().slot_layers;
  // At another slot the model computes base apart and then adds it.
  const bool is_slot = std::find(slots.begin(), slots.end(), layer) != slots.end();
  in_chunks(x.rows, gate, [&](std::int64_t first, std::int64_t count) {
    const Matrix normed = space_.matrix(kNormed, act, count, c.d_model);
    const Matrix wide = space_.matrix(kWide, DType::kF32, count, c.mlp_width());
    const Matrix gated = space_.matrix(kGated, act, count, c.d_ff);
    gpt_.norm(x.slice_rows(first, count), w.mlp_norm, w.mlp_norm_bias, normed);
    backend.linear(normed, *w.mlp.gate_up, wide, floats(w.mlp.up_bias), /*accumulate=*/false);
    if (c.mlp_form == MlpForm::kSwiGlu) {
      backend.silu_mul(wide, gated);
    } else {
      backend.gelu(wide, gated);
    }
    if (!is_slot) {
      backend.linear(gated, *w.mlp.down, x.slice_rows(first, count), floats(w.mlp.down_bias),
                     /*accumulate=*/true);
      return;
    }
    const Matrix out = space_.matrix(kSlotOut, DType::kF32, count, c.d_model);
    backend.linear(gated, *w.mlp.down, out, floats(w.mlp.down_bias), /*accumulate=*/false);
    backend.add(out, 1.0f, x.slice_rows(first, count));
  });
}

void UpperLayers::fold(Matrix x, std::span<const std::int32_t> targets, std::span<SoftmaxRow> sums,
                       GateSlices& gate) {
  const Matrix hidden = space_.matrix(kHidden, gpt_.activation_dtype(), x.rows, x.cols);
  gpt_.norm(x, gpt_.final_norm(), gpt_.final_norm_bias(), hidden);
  gate.breathe();
  // Every block's weights are read once; its logits stay in the cache until they are folded.
  for (const OutputBlock& block : output_) {
    for (std::int64_t row = 0; row < x.rows; row += kChunkRows) {
      const std::int64_t n = std::min(kChunkRows, x.rows - row);
      const Matrix logits = space_.matrix(kLogits, DType::kF32, n, block.map->outputs());
      gpt_.backend().linear(hidden.slice_rows(row, n), *block.map, logits, nullptr,
                            /*accumulate=*/false);
      const auto at = static_cast<std::size_t>(row), count = static_cast<std::size_t>(n);
      gpt_.backend().softmax_block(logits, block.first, targets.subspan(at, count),
                                   sums.subspan(at, count), Matrix{});
    }
    gate.breathe();
  }
}

void UpperLayers::run(std::int64_t readings, std::span<const std::int32_t> targets,
                      std::span<SoftmaxRow> sums, GateSlices& gate) {
  const auto length = static_cast<std::int64_t>(targets.size());
  MEMSLOT_CHECK(std::ssize(sums) == readings * length);
  const Matrix x = input(readings, length);
  const auto parts = spans(readings, length);
  // The rows that only pad are computed too: from zeros, for good numbers.
  const Matrix attended =
      space_.matrix(kAttended, gpt_.activation_dtype(), x.rows, gpt_.config().q_width());
  zero_from(x, readings * length);
  zero_from(attended, readings * length);
  for (int layer = layer_ + 1; layer < gpt_.config().layers; ++layer) {
    attend(layer, x, parts, gate);
    feed_forward(layer, x, gate);
  }
  std::vector<std::int32_t> all;
  all.reserve(static_cast<std::size_t>(x.rows));
  for (std::int64_t r = 0; r < readings; ++r) all.insert(all.end(), targets.begin(), targets.end());
  all.resize(static_cast<std::size_t>(x.rows), -1);
  std::vector<SoftmaxRow> padded_sums(all.size());
  fold(x, all, padded_sums, gate);
  std::copy_n(padded_sums.begin(), sums.size(), sums.begin());
}

}  // namespace memslot
