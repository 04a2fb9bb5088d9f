#include "generator/learn/upper_stack.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace memslot {
namespace {

// Places of the workspace. Per-layer ones follow kPerLayer.
enum Place : std::size_t {
  kNormed,
  kQkv,
  kAttended,
  kH,
  kWide,
  kGated,
  kKv,
  kHidden,
  kLogits,
  kExps,
  kDHidden,
  kTargetRows,
  kLow,
  kDWide,
  kDQkv,
  kDAttended,
  kPerLayer,
};
constexpr std::size_t kLayerPlaces = 4;

const float* floats(const Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

Result<std::shared_ptr<const PackedWeight>> pack_transposed(
    const ModelFile& file, Backend& backend, DType dtype, int layer,
    std::initializer_list<TensorRole> roles) {
  HostTensor joined;
  std::int64_t rows = 0, cols = 0;
  for (const TensorRole role : roles) {
    MEMSLOT_TRY(HostTensor part, file.tensor(role, layer));
    rows += part.shape[0];
    cols = part.shape[1];
    if (joined.values.empty()) {
      joined.values = std::move(part.values);
    } else {
      joined.values.insert(joined.values.end(), part.values.begin(), part.values.end());
    }
  }
  joined.shape = Shape{rows, cols};
  return backend.pack(joined.view(), dtype, Transpose::kYes);
}

}  // namespace

std::int64_t LossRows::longest() const {
  return lengths.empty() ? 0 : *std::ranges::max_element(lengths);
}

Result<std::unique_ptr<UpperStack>> UpperStack::make(Gpt& gpt, const ModelFile& file, int layer) {
  MEMSLOT_CHECK(layer >= 0 && layer < gpt.config().layers);
  std::unique_ptr<UpperStack> stack(new UpperStack(gpt, layer));
  MEMSLOT_TRY(stack->load(file));
  return stack;
}

Status UpperStack::load(const ModelFile& file) {
  using Role = TensorRole;
  const ModelConfig& c = gpt_.config();
  const DType dtype = gpt_.activation_dtype();
  const auto pack = [&](int l, std::initializer_list<Role> roles) {
    return pack_transposed(file, gpt_.backend(), dtype, l, roles);
  };
  MEMSLOT_TRY(load_head(file));
  for (int l = layer_ + 1; l < c.layers; ++l) {
    Transposed t;
    MEMSLOT_TRY(t.qkv, pack(l, {Role::kQ, Role::kK, Role::kV}));
    MEMSLOT_TRY(t.attn_out, pack(l, {Role::kAttnOut}));
    if (c.mlp_form == MlpForm::kSwiGlu) {
      MEMSLOT_TRY(t.gate_up, pack(l, {Role::kGate, Role::kUp}));
    } else {
      MEMSLOT_TRY(t.gate_up, pack(l, {Role::kUp}));
    }
    MEMSLOT_TRY(t.down, pack(l, {Role::kDown}));
    transposed_.push_back(std::move(t));
  }
  return ok();
}

Status UpperStack::load_head(const ModelFile& file) {
  const ModelConfig& c = gpt_.config();
  Backend& backend = gpt_.backend();
  MEMSLOT_TRY(const HostTensor table,
              file.tensor(c.tied_output ? TensorRole::kTokenEmbedding : TensorRole::kOutput, 0));
  for (std::int64_t first = 0; first < c.vocab; first += kHeadColumns) {
    const std::int64_t count = std::min(kHeadColumns, c.vocab - first);
    ConstHostTensor part = table.view();
    part.data += static_cast<std::size_t>(first * c.d_model) * dtype_size(part.dtype);
    part.shape = Shape{count, c.d_model};
    HeadBlock block{first, nullptr, nullptr};
    MEMSLOT_TRY(block.forward, backend.slice_outputs(gpt_.output(), first, count));
    MEMSLOT_TRY(block.transposed, backend.pack(part, gpt_.activation_dtype(), Transpose::kYes));
    head_.push_back(std::move(block));
  }
  return ok();
}

Status UpperStack::reserve(std::int64_t rows) {
  if (rows <= reserved_) return ok();
  const ModelConfig& c = gpt_.config();
  const DType act = gpt_.activation_dtype(), f32 = DType::kF32;
  const std::int64_t d = c.d_model, q = c.q_width(), qkv = q + 2 * c.kv_width();
  const std::int64_t columns = std::min<std::int64_t>(kHeadColumns, c.vocab);
  MEMSLOT_TRY(space_.reserve(kNormed, act, rows, d));
  MEMSLOT_TRY(space_.reserve(kQkv, f32, rows, qkv));
  MEMSLOT_TRY(space_.reserve(kAttended, act, rows, q));
  MEMSLOT_TRY(space_.reserve(kWide, f32, rows, c.mlp_width()));
  MEMSLOT_TRY(space_.reserve(kGated, act, rows, c.d_ff));
  MEMSLOT_TRY(space_.reserve(kKv, act, 2 * rows, c.kv_width()));
  MEMSLOT_TRY(space_.reserve(kHidden, act, rows, d));
  MEMSLOT_TRY(space_.reserve(kLogits, f32, rows, columns));
  MEMSLOT_TRY(space_.reserve(kExps, act, rows, columns));
  MEMSLOT_TRY(space_.reserve(kDHidden, f32, rows, d));
  MEMSLOT_TRY(space_.reserve(kTargetRows, f32, rows, d));
  MEMSLOT_TRY(space_.reserve(kLow, act, rows, std::max<std::int64_t>(d, qkv)));
  MEMSLOT_TRY(space_.reserve(kDWide, act, rows, c.mlp_width()));
  MEMSLOT_TRY(space_.reserve(kDQkv, f32, rows, qkv));
  MEMSLOT_TRY(space_.reserve(kDAttended, f32, rows, std::max<std::int64_t>(q, c.d_ff)));
  for (int i = 0; i < upper(); ++i) {
    const std::size_t first = kPerLayer + kLayerPlaces * static_cast<std::size_t>(i);
    MEMSLOT_TRY(space_.reserve(first, f32, rows, d));
    MEMSLOT_TRY(space_.reserve(first + 1, f32, rows, qkv));
    MEMSLOT_TRY(space_.reserve(first + 2, f32, rows, d));
    MEMSLOT_TRY(space_.reserve(first + 3, f32, rows, c.mlp_width()));
  }
  reserved_ = rows;
  return ok();
}

UpperStack::Saved UpperStack::saved(int index, std::int64_t rows) const {
  const ModelConfig& c = gpt_.config();
  const std::size_t first = kPerLayer + kLayerPlaces * static_cast<std::size_t>(index);
  const DType f32 = DType::kF32;
  return {space_.matrix(first, f32, rows, c.d_model),
          space_.matrix(first + 1, f32, rows, c.q_width() + 2 * c.kv_width()),
          space_.matrix(first + 2, f32, rows, c.d_model),
          space_.matrix(first + 3, f32, rows, c.mlp_width())};
}

// All sequences share one key/value buffer, cut by rows; every layer overwrites it.
std::vector<AttentionSpan> UpperStack::spans(const LossRows& batch) const {
  const DType dtype = gpt_.activation_dtype();
  const std::int64_t width = gpt_.config().kv_width();
  auto* at = static_cast<std::byte*>(space_.data(kKv));
  std::vector<AttentionSpan> out;
  std::int64_t row = 0;
  for (const std::int64_t count : batch.lengths) {
    const std::size_t bytes = static_cast<std::size_t>(count * width) * dtype_size(dtype);
    out.push_back({row, count, 0, {at, at + bytes, dtype, count}});
    at += 2 * bytes;
    row += count;
  }
  MEMSLOT_CHECK(row == batch.rows());
  return out;
}

void UpperStack::forward_layer(int l, Matrix x, Saved* keep,
                               const std::vector<AttentionSpan>& parts, GateSlices& gate) {
  Backend& backend = gpt_.backend();
  const ModelConfig& c = gpt_.config();
  const LayerWeights& w = gpt_.layer(l);
  const DType act = gpt_.activation_dtype();
  const std::int64_t rows = x.rows, d = c.d_model;
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim};
  const float theta = c.family == ModelConfig::Family::kLlama ? c.rope_theta : 0.0f;
  const Matrix normed = space_.matrix(kNormed, act, rows, d);
  const Matrix qkv = keep != nullptr
                         ? keep->qkv
                         : space_.matrix(kQkv, DType::kF32, rows, c.q_width() + 2 * c.kv_width());
  const Matrix wide =
      keep != nullptr ? keep->wide : space_.matrix(kWide, DType::kF32, rows, c.mlp_width());
  const Matrix attended = space_.matrix(kAttended, act, rows, c.q_width());
  const Matrix gated = space_.matrix(kGated, act, rows, c.d_ff);
  if (keep != nullptr) backend.copy(x, keep->x);
  gpt_.norm(x, w.attn_norm, w.attn_norm_bias, normed);
  backend.linear(normed, *w.qkv, qkv, floats(w.qkv_bias), /*accumulate=*/false);
  backend.rope_store(qkv, shape, theta, parts);
  backend.attention(qkv, shape, parts, attended);
  backend.linear(attended, *w.attn_out, x, floats(w.attn_out_bias), /*accumulate=*/true);
  gate.breathe();
  if (keep != nullptr) backend.copy(x, keep->h);
  gpt_.norm(x, w.mlp_norm, w.mlp_norm_bias, normed);
  backend.linear(normed, *w.mlp.gate_up, wide, floats(w.mlp.up_bias), /*accumulate=*/false);
  if (c.mlp_form == MlpForm::kSwiGlu) {
    backend.silu_mul(wide, gated);
  } else {
    backend.gelu(wide, gated);
  }
  backend.linear(gated, *w.mlp.down, x, floats(w.mlp.down_bias), /*accumulate=*/true);
  gate.breathe();
}

void UpperStack::norm_backward(ConstMatrix x, const Buffer& weight, ConstMatrix dy, Matrix dx) {
  const ModelConfig& c = gpt_.config();
  if (c.family == ModelConfig::Family::kLlama) {
    gpt_.backend().rms_norm_backward(x, floats(weight), c.norm_eps, dy, dx, /*accumulate=*/true);
  } else {
    gpt_.backend().layer_norm_backward(x, floats(weight), c.norm_eps, dy, dx, /*accumulate=*/true);
  }
}

// dx holds the gradient of the layer's output and ends as that of its input.
void UpperStack::backward_layer(int l, const Saved& saved, Matrix dx,
                                const std::vector<AttentionSpan>& parts, GateSlices& gate) {
  Backend& backend = gpt_.backend();
  const ModelConfig& c = gpt_.config();
  const LayerWeights& w = gpt_.layer(l);
  const Transposed& t = transposed_[static_cast<std::size_t>(l - layer_ - 1)];
  const DType act = gpt_.activation_dtype();
  const std::int64_t rows = dx.rows, d = c.d_model, qkv_cols = c.q_width() + 2 * c.kv_width();
  const AttentionShape shape{c.heads, c.kv_heads, c.head_dim};
  const Matrix low = space_.matrix(kLow, act, rows, d);
  const Matrix dnormed = space_.matrix(kDHidden, DType::kF32, rows, d);
  const Matrix dgated = space_.matrix(kDAttended, DType::kF32, rows, c.d_ff);
  const Matrix dwide = space_.matrix(kDWide, act, rows, c.mlp_width());
  backend.copy(dx, low);
  backend.linear(low, *t.down, dgated, nullptr, /*accumulate=*/false);
  if (c.mlp_form == MlpForm::kSwiGlu) {
    backend.silu_mul_backward(saved.wide, dgated, dwide);
  } else {
    backend.gelu_backward(saved.wide, dgated, dwide);
  }
  backend.linear(dwide, *t.gate_up, dnormed, nullptr, /*accumulate=*/false);
  norm_backward(saved.h, w.mlp_norm, dnormed, dx);
  gate.breathe();
  const Matrix dattended = space_.matrix(kDAttended, act, rows, c.q_width());
  const Matrix dqkv = space_.matrix(kDQkv, DType::kF32, rows, qkv_cols);
  backend.copy(dx, low);
  backend.linear(low, *t.attn_out, dattended, nullptr, /*accumulate=*/false);
  backend.attention_backward(saved.qkv, shape, parts, dattended, dqkv);
  backend.rope_backward(dqkv, shape, c.family == ModelConfig::Family::kLlama ? c.rope_theta : 0.0f,
                        parts);
  const Matrix low_qkv = space_.matrix(kLow, act, rows, qkv_cols);
  backend.copy(dqkv, low_qkv);
  backend.linear(low_qkv, *t.qkv, dnormed, nullptr, /*accumulate=*/false);
  norm_backward(saved.x, w.attn_norm, dnormed, dx);
  gate.breathe();
}

void UpperStack::head(ConstMatrix x, const LossRows& batch, RowLosses& out, const Matrix* dx,
                      GateSlices& gate) {
  Backend& backend = gpt_.backend();
  const std::int64_t rows = x.rows, d = x.cols;
  const auto n = static_cast<std::size_t>(rows);
  const DType act = gpt_.activation_dtype(), f32 = DType::kF32;
  const Matrix hidden = space_.matrix(kHidden, act, rows, d);
  const Matrix dhidden = space_.matrix(kDHidden, f32, rows, d);
  std::vector<SoftmaxRow> state(n);
  std::vector<float> rescale(n);
  gpt_.norm(x, gpt_.final_norm(), gpt_.final_norm_bias(), hidden);
  for (const HeadBlock& block : head_) {
    const std::int64_t columns = block.forward->outputs();
    const Matrix logits = space_.matrix(kLogits, f32, rows, columns);
    const Matrix exps = dx == nullptr ? Matrix{} : space_.matrix(kExps, act, rows, columns);
    backend.linear(hidden, *block.forward, logits, nullptr, /*accumulate=*/false);
    backend.softmax_block(logits, block.first, batch.targets, state, exps);
    if (dx != nullptr) {
      std::ranges::transform(state, rescale.begin(), &SoftmaxRow::rescale);
      if (block.first != 0) backend.blend_rows(dhidden, rescale, {}, {});
      backend.linear(exps, *block.transposed, dhidden, nullptr, /*accumulate=*/block.first != 0);
    }
    gate.breathe();
  }
  out.nll.assign(n, 0.0f);
  out.argmax.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (batch.targets[i] >= 0) out.nll[i] = state[i].nll();
    out.argmax[i] = state[i].argmax;
  }
  if (dx == nullptr) return;
  finish_head(batch, state, dhidden);
  std::fill_n(dx->f32(), rows * dx->stride, 0.0f);
  norm_backward(x, gpt_.final_norm(), dhidden, *dx);
  gate.breathe();
}

void UpperStack::finish_head(const LossRows& batch, const std::vector<SoftmaxRow>& rows,
                             Matrix dhidden) {
  const std::size_t n = rows.size();
  std::vector<float> others(n, 0.0f), own(n, 0.0f);
  std::vector<std::int32_t> ids(n, 0);
  for (std::size_t i = 0; i < n; ++i) {
    if (batch.targets[i] < 0) continue;
    ids[i] = batch.targets[i];
    others[i] = batch.weights[i] / rows[i].sum;
    own[i] = batch.weights[i] * std::expm1(-rows[i].nll());
  }
  const Matrix targets = space_.matrix(kTargetRows, DType::kF32, dhidden.rows, dhidden.cols);
  gpt_.backend().embed(gpt_.output(), ids, targets);
  gpt_.backend().blend_rows(dhidden, others, targets, own);
}

void UpperStack::losses(Matrix x, const LossRows& batch, RowLosses& out, GateSlices& gate) {
  MEMSLOT_CHECK(x.rows == batch.rows() && x.rows <= reserved_);
  const auto parts = spans(batch);
  for (int l = layer_ + 1; l < gpt_.config().layers; ++l) forward_layer(l, x, nullptr, parts, gate);
  head(x, batch, out, nullptr, gate);
}

void UpperStack::gradient(Matrix x, const LossRows& batch, RowLosses& out, Matrix dx,
                          GateSlices& gate) {
  MEMSLOT_CHECK(x.rows == batch.rows() && x.rows <= reserved_ && dx.rows == x.rows);
  MEMSLOT_CHECK(batch.weights.size() == batch.targets.size() && dx.stride == dx.cols);
  const auto parts = spans(batch);
  for (int i = 0; i < upper(); ++i) {
    Saved keep = saved(i, x.rows);
    forward_layer(layer_ + 1 + i, x, &keep, parts, gate);
  }
  head(x, batch, out, &dx, gate);
  for (int i = upper() - 1; i >= 0; --i) {
    backward_layer(layer_ + 1 + i, saved(i, x.rows), dx, parts, gate);
  }
}

std::size_t UpperStack::bytes() const {
  std::size_t sum = space_.bytes();
  for (const HeadBlock& block : head_) sum += block.forward->bytes() + block.transposed->bytes();
  for (const Transposed& t : transposed_) sum += t.bytes();
  return sum;
}

}  // namespace memslot
