#include "generator/slot/delta_slot.h"

#include <cmath>
#include <string>
#include <vector>

#include "shared/base/digest.h"

namespace memslot {
namespace {

constexpr float kL2Eps = 1e-6f;

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// diag(g) w; 0 * finite is 0, so a zero gate gives exact zeros.
std::vector<float> scale_rows(std::vector<float> w, const std::vector<float>& g) {
  const std::size_t cols = w.size() / g.size();
  for (std::size_t i = 0; i < w.size(); ++i) w[i] *= g[i / cols];
  return w;
}

Result<DeltaState> upload_state(Backend& backend, const DeltaStateValues& values) {
  std::vector<float> conv;
  for (const auto* part : {&values.conv_q, &values.conv_k, &values.conv_v}) append(conv, *part);
  DeltaState state;
  MEMSLOT_TRY(state.s, upload_values(backend, values.s));
  MEMSLOT_TRY(state.conv, upload_values(backend, conv));
  state.position = values.position;
  return state;
}

}  // namespace

Result<DeltaMemory> DeltaMemory::load(const MemoryPayload& payload, const MemoryPayload* outer,
                                      Backend& backend, DType weights) {
  const std::string named = payload.signature().outer.hex();
  if (outer == nullptr) return mismatch("outer parameters of a delta memory", named, "none");
  const Sha256 found = sha256(outer->bytes());
  if (found != payload.signature().outer) {
    return mismatch("outer parameters of a delta memory", named, found.hex());
  }
  DeltaMemory m;
  m.signature_ = payload.signature();
  MEMSLOT_TRY(m.load_outer(*outer, backend, weights));
  MEMSLOT_TRY(const DeltaStateView state, DeltaStateView::parse(payload, m.shape_));
  m.stored_ = to_values(state);
  return m;
}

Status DeltaMemory::load_outer(const MemoryPayload& outer, Backend& backend, DType weights) {
  if (outer.signature().d_model != signature_.d_model) {
    return mismatch("model width of outer parameters", signature_.d_model,
                    outer.signature().d_model);
  }
  MEMSLOT_TRY(const DeltaOuterView view, DeltaOuterView::parse(outer));
  const DeltaOuterValues v = to_values(view);
  const std::int64_t d = signature_.d_model;
  shape_ = v.shape;
  beta_scale_ = static_cast<float>(v.beta_scale);
  norm_eps_ = static_cast<float>(v.norm_eps);
  std::vector<float> in, conv;
  for (const auto* part : {&v.q_proj, &v.k_proj, &v.v_proj, &v.g_proj, &v.b_proj})
    append(in, *part);
  for (const auto* part : {&v.q_conv, &v.k_conv, &v.v_conv}) append(conv, *part);
  MEMSLOT_TRY(in_, pack_values(backend, in, std::ssize(in) / d, d, weights, Transpose::kNo));
  MEMSLOT_TRY(out_, pack_values(backend, scale_rows(v.o_proj, v.slot_gate), d, shape_.values(),
                                weights, Transpose::kNo));
  MEMSLOT_TRY(conv_, upload_values(backend, conv));
  MEMSLOT_TRY(o_norm_, upload_values(backend, v.o_norm));
  // x / sqrt(sum x^2 + e) is rms_norm with weight K^-1/2 and epsilon e / K.
  const auto keys = static_cast<std::size_t>(shape_.key_dim);
  const std::vector<float> unit(keys, 1.0f / std::sqrt(static_cast<float>(keys)));
  MEMSLOT_TRY(key_norm_, upload_values(backend, unit));
  return ok();
}

std::size_t DeltaMemory::bytes() const {
  return in_->bytes() + out_->bytes() + conv_.bytes() + key_norm_.bytes() + o_norm_.bytes() +
         sizeof(float) * (stored_.s.size() + 2 * stored_.conv_q.size() + stored_.conv_v.size());
}

DeltaState DeltaMemory::start(Backend& backend) const {
  auto state = upload_state(backend, stored_);
  MEMSLOT_CHECK(state.has_value());  // a few hundred kilobytes
  return std::move(state).value();
}

void DeltaMemory::normalise(Backend& backend, Matrix convolved) const {
  const auto* unit = static_cast<const float*>(key_norm_.data());
  const float eps = kL2Eps / static_cast<float>(shape_.key_dim);
  for (std::int64_t head = 0; head < 2 * shape_.heads; ++head) {  // of q, then of k
    const Matrix part = convolved.slice_cols(head * shape_.key_dim, shape_.key_dim);
    backend.rms_norm(part, unit, eps, part);
  }
}

Matrix DeltaMemory::read_out(const SlotRun& run, ConstMatrix projected, Matrix o) const {
  const std::int64_t rows = o.rows, width = shape_.values();
  const DType dtype = out_->dtype();
  const auto* weight = static_cast<const float*>(o_norm_.data());
  const auto norm_heads = [&](Matrix to) {
    for (std::int64_t head = 0; head < shape_.heads; ++head) {
      const std::int64_t first = head * shape_.value_dim;
      run.backend.rms_norm(o.slice_cols(first, shape_.value_dim), weight, norm_eps_,
                           to.slice_cols(first, shape_.value_dim));
    }
  };
  const Matrix out = run.scratch.take(5, dtype, rows, width);
  if (!shape_.output_gate) {
    norm_heads(out);
    return out;
  }
  const Matrix gated = run.scratch.take(6, DType::kF32, rows, 2 * width);
  run.backend.copy(projected.slice_cols(channels(), width), gated.slice_cols(0, width));
  norm_heads(gated.slice_cols(width, width));
  run.backend.silu_mul(gated, out);
  return out;
}

void DeltaMemory::forward(const SlotRun& run, DeltaState& state) const {
  Backend& backend = run.backend;
  const std::int64_t rows = run.x.rows, keys = shape_.keys(), values = shape_.values();
  const Matrix projected = run.scratch.take(2, DType::kF32, rows, in_->outputs());
  const Matrix convolved = run.scratch.take(3, DType::kF32, rows, channels());
  const Matrix o = run.scratch.take(4, DType::kF32, rows, values);
  const Matrix beta = run.scratch.take(7, DType::kF32, rows, shape_.heads);
  backend.linear(run.x, *in_, projected, nullptr, false);
  backend.causal_conv_silu(projected.slice_cols(0, channels()),
                           static_cast<const float*>(conv_.data()),
                           static_cast<float*>(state.conv.data()), convolved);
  normalise(backend, convolved);
  backend.sigmoid(projected.slice_cols(in_->outputs() - shape_.heads, shape_.heads), beta_scale_,
                  beta);
  backend.delta_rule(convolved.slice_cols(0, keys), convolved.slice_cols(keys, keys),
                     convolved.slice_cols(2 * keys, values), beta, static_cast<int>(shape_.heads),
                     static_cast<float*>(state.s.data()), o);
  const Matrix read = read_out(run, projected, o);
  run_mlp(run, run.base);
  backend.linear(read, *out_, run.y, nullptr, /*accumulate=*/true);
  state.position += rows;
}

Result<MemoryPayload> DeltaMemory::save(Backend& backend, const DeltaState& state) const {
  DeltaStateValues values = DeltaStateValues::zero(shape_);
  std::vector<float> conv(2 * values.conv_q.size() + values.conv_v.size());
  MEMSLOT_TRY(backend.download(std::as_writable_bytes(std::span(values.s)), state.s.data()));
  MEMSLOT_TRY(backend.download(std::as_writable_bytes(std::span(conv)), state.conv.data()));
  const auto keys = static_cast<std::ptrdiff_t>(values.conv_q.size());
  values.conv_q.assign(conv.begin(), conv.begin() + keys);
  values.conv_k.assign(conv.begin() + keys, conv.begin() + 2 * keys);
  values.conv_v.assign(conv.begin() + 2 * keys, conv.end());
  values.position = state.position;
  return make_delta_state(signature_, shape_, values);
}

Result<DeltaState> DeltaMemory::restore(Backend& backend, const MemoryPayload& payload) const {
  MEMSLOT_TRY(check_signature(signature_, payload.signature()));
  MEMSLOT_TRY(payload.check_finite());
  MEMSLOT_TRY(const DeltaStateView view, DeltaStateView::parse(payload, shape_));
  return upload_state(backend, to_values(view));
}

}  // namespace memslot
