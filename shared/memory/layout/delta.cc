#include "shared/memory/layout/delta.h"

#include <cmath>
#include <numbers>
#include <string_view>

#include "shared/base/digest.h"
#include "shared/base/rng.h"
#include "shared/memory/layout/checks.h"
#include "shared/memory/layout/mlp.h"

namespace memslot {
namespace {

constexpr std::int64_t kMaxDim = 1024;
constexpr std::int64_t kMaxWidth = 8192;
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 53;
constexpr double kInitDeviation = 0.02;

std::vector<std::string_view> outer_tensors(bool output_gate) {
  std::vector<std::string_view> names = {"q_proj", "k_proj", "v_proj", "o_proj", "b_proj",
                                         "q_conv", "k_conv", "v_conv", "o_norm", "slot_gate"};
  if (output_gate) names.push_back("g_proj");
  return names;
}

Result<DeltaShape> parse_shape(const MemoryPayload& payload) {
  DeltaShape shape;
  MEMSLOT_TRY(shape.heads, layout::integer(payload, "heads", 1, kMaxDim));
  MEMSLOT_TRY(shape.key_dim, layout::integer(payload, "key_dim", 1, kMaxDim));
  MEMSLOT_TRY(shape.value_dim, layout::integer(payload, "value_dim", 1, kMaxDim));
  MEMSLOT_TRY(const std::int64_t gate, layout::integer(payload, "output_gate", 0, 1));
  shape.output_gate = gate == 1;
  MEMSLOT_TRY(check_delta_shape(shape));
  return shape;
}

// Standard normal numbers by Box and Muller, one stream per tensor.
std::vector<float> normal(std::int64_t count, double deviation, std::uint64_t seed,
                          std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double u = 1.0 - uniform01(seed, stream, 2 * i);  // (0, 1]
    const double angle = 2 * std::numbers::pi * uniform01(seed, stream, 2 * i + 1);
    values[i] = static_cast<float>(deviation * std::sqrt(-2 * std::log(u)) * std::cos(angle));
  }
  return values;
}

}  // namespace

Status check_delta_shape(const DeltaShape& shape) {
  for (const std::int64_t dim : {shape.heads, shape.key_dim, shape.value_dim}) {
    if (dim < 1 || dim > kMaxDim) {
      return corrupt("heads and widths", "1 to " + std::to_string(kMaxDim), std::to_string(dim));
    }
  }
  if (shape.keys() <= kMaxWidth && shape.values() <= kMaxWidth) return ok();
  return corrupt("width of all heads", "at most " + std::to_string(kMaxWidth),
                 std::to_string(std::max(shape.keys(), shape.values())));
}

Result<DeltaOuterView> DeltaOuterView::parse(const MemoryPayload& payload) {
  MEMSLOT_TRY(layout::expect_kind(payload, MemoryKind::kDelta));
  if (!payload.signature().outer.is_zero()) {
    return mismatch("delta payload", "outer parameters", "a state");
  }
  DeltaOuterView v;
  MEMSLOT_TRY(v.shape, parse_shape(payload));
  MEMSLOT_TRY(v.beta_scale, layout::number(payload, "beta_scale", 0, 2));
  MEMSLOT_TRY(v.norm_eps, layout::number(payload, "norm_eps", 0, 1));
  MEMSLOT_TRY(layout::expect_tensors(payload, outer_tensors(v.shape.output_gate)));
  const std::int64_t d = payload.signature().d_model, hk = v.shape.keys(), hv = v.shape.values();
  MEMSLOT_TRY(v.q_proj, payload.tensor("q_proj", Shape{hk, d}));
  MEMSLOT_TRY(v.k_proj, payload.tensor("k_proj", Shape{hk, d}));
  MEMSLOT_TRY(v.v_proj, payload.tensor("v_proj", Shape{hv, d}));
  MEMSLOT_TRY(v.o_proj, payload.tensor("o_proj", Shape{d, hv}));
  MEMSLOT_TRY(v.b_proj, payload.tensor("b_proj", Shape{v.shape.heads, d}));
  MEMSLOT_TRY(v.q_conv, payload.tensor("q_conv", Shape{hk, kDeltaConvWidth}));
  MEMSLOT_TRY(v.k_conv, payload.tensor("k_conv", Shape{hk, kDeltaConvWidth}));
  MEMSLOT_TRY(v.v_conv, payload.tensor("v_conv", Shape{hv, kDeltaConvWidth}));
  MEMSLOT_TRY(v.o_norm, payload.tensor("o_norm", Shape{v.shape.value_dim}));
  MEMSLOT_TRY(v.slot_gate, payload.tensor("slot_gate", Shape{d}));
  if (v.shape.output_gate) {
    MEMSLOT_TRY(v.g_proj, payload.tensor("g_proj", Shape{hv, d}));
  }
  return v;
}

Result<DeltaStateView> DeltaStateView::parse(const MemoryPayload& payload,
                                             const DeltaShape& shape) {
  static constexpr std::string_view kNames[] = {"S:f32", "conv_q:f32", "conv_k:f32", "conv_v:f32"};
  MEMSLOT_TRY(layout::expect_kind(payload, MemoryKind::kDelta));
  if (payload.signature().outer.is_zero()) {
    return mismatch("delta payload", "a state", "outer parameters");
  }
  MEMSLOT_TRY(layout::expect_tensors(payload, kNames));
  DeltaStateView v;
  MEMSLOT_TRY(v.position, layout::integer(payload, "position", 0, kMaxPosition));
  MEMSLOT_TRY(v.s, payload.tensor("S:f32", Shape{shape.heads, shape.key_dim, shape.value_dim}));
  MEMSLOT_TRY(v.conv_q, payload.tensor("conv_q:f32", Shape{shape.keys(), kDeltaConvWidth}));
  MEMSLOT_TRY(v.conv_k, payload.tensor("conv_k:f32", Shape{shape.keys(), kDeltaConvWidth}));
  MEMSLOT_TRY(v.conv_v, payload.tensor("conv_v:f32", Shape{shape.values(), kDeltaConvWidth}));
  return v;
}

DeltaStateValues DeltaStateValues::zero(const DeltaShape& shape) {
  DeltaStateValues values;
  values.s.resize(static_cast<std::size_t>(shape.keys() * shape.value_dim));
  values.conv_q.resize(static_cast<std::size_t>(shape.keys() * kDeltaConvWidth));
  values.conv_k = values.conv_q;
  values.conv_v.resize(static_cast<std::size_t>(shape.values() * kDeltaConvWidth));
  return values;
}

DeltaOuterValues to_values(const DeltaOuterView& v) {
  return {v.shape,          v.beta_scale,       v.norm_eps,       to_f32(v.q_proj),
          to_f32(v.k_proj), to_f32(v.v_proj),   to_f32(v.o_proj), to_f32(v.b_proj),
          to_f32(v.g_proj), to_f32(v.q_conv),   to_f32(v.k_conv), to_f32(v.v_conv),
          to_f32(v.o_norm), to_f32(v.slot_gate)};
}

DeltaStateValues to_values(const DeltaStateView& v) {
  return {v.position, to_f32(v.s), to_f32(v.conv_q), to_f32(v.conv_k), to_f32(v.conv_v)};
}

Result<MemoryPayload> make_delta_outer(const SlotSignature& signature, DType dtype,
                                       const DeltaOuterValues& v) {
  MEMSLOT_CHECK(signature.kind == MemoryKind::kDelta && signature.outer.is_zero());
  const std::int64_t d = signature.d_model, hk = v.shape.keys(), hv = v.shape.values();
  MemoryPayloadBuilder builder(signature, dtype);
  builder.scalar("heads", static_cast<double>(v.shape.heads))
      .scalar("key_dim", static_cast<double>(v.shape.key_dim))
      .scalar("value_dim", static_cast<double>(v.shape.value_dim))
      .scalar("output_gate", v.shape.output_gate ? 1 : 0)
      .scalar("beta_scale", v.beta_scale)
      .scalar("norm_eps", v.norm_eps);
  builder.tensor("q_proj", Shape{hk, d}, v.q_proj)
      .tensor("k_proj", Shape{hk, d}, v.k_proj)
      .tensor("v_proj", Shape{hv, d}, v.v_proj)
      .tensor("o_proj", Shape{d, hv}, v.o_proj)
      .tensor("b_proj", Shape{v.shape.heads, d}, v.b_proj)
      .tensor("q_conv", Shape{hk, kDeltaConvWidth}, v.q_conv)
      .tensor("k_conv", Shape{hk, kDeltaConvWidth}, v.k_conv)
      .tensor("v_conv", Shape{hv, kDeltaConvWidth}, v.v_conv)
      .tensor("o_norm", Shape{v.shape.value_dim}, v.o_norm)
      .tensor("slot_gate", Shape{d}, v.slot_gate);
  if (v.shape.output_gate) builder.tensor("g_proj", Shape{hv, d}, v.g_proj);
  return builder.finish();
}

Result<MemoryPayload> make_delta_state(const SlotSignature& signature, const DeltaShape& shape,
                                       const DeltaStateValues& values) {
  MEMSLOT_CHECK(signature.kind == MemoryKind::kDelta && !signature.outer.is_zero());
  MemoryPayloadBuilder builder(signature, DType::kF32);
  builder.scalar("position", static_cast<double>(values.position))
      .tensor("S:f32", Shape{shape.heads, shape.key_dim, shape.value_dim}, values.s)
      .tensor("conv_q:f32", Shape{shape.keys(), kDeltaConvWidth}, values.conv_q)
      .tensor("conv_k:f32", Shape{shape.keys(), kDeltaConvWidth}, values.conv_k)
      .tensor("conv_v:f32", Shape{shape.values(), kDeltaConvWidth}, values.conv_v);
  return builder.finish();
}

Result<FreshDelta> make_fresh_delta(SlotSignature signature, const DeltaShape& shape, DType dtype,
                                    std::uint64_t seed) {
  const std::int64_t d = signature.d_model, hk = shape.keys(), hv = shape.values();
  std::uint64_t stream = 0;
  const auto draw = [&](std::int64_t count) {
    return normal(count, kInitDeviation, seed, ++stream);
  };
  DeltaOuterValues v;
  v.shape = shape;
  v.q_proj = draw(hk * d);
  v.k_proj = draw(hk * d);
  v.v_proj = draw(hv * d);
  v.o_proj = draw(d * hv);
  v.b_proj = draw(shape.heads * d);
  v.q_conv = draw(hk * kDeltaConvWidth);
  v.k_conv = draw(hk * kDeltaConvWidth);
  v.v_conv = draw(hv * kDeltaConvWidth);
  if (shape.output_gate) v.g_proj = draw(hv * d);
  v.o_norm.assign(static_cast<std::size_t>(shape.value_dim), 1.0f);
  v.slot_gate.assign(static_cast<std::size_t>(d), 0.0f);
  signature.outer = Sha256{};
  MEMSLOT_TRY(MemoryPayload outer, make_delta_outer(signature, dtype, v));
  signature.outer = sha256(outer.bytes());
  MEMSLOT_TRY(MemoryPayload state,
              make_delta_state(signature, shape, DeltaStateValues::zero(shape)));
  return FreshDelta{std::move(outer), std::move(state)};
}

}  // namespace memslot
