#include "shared/memory/layout/mlp.h"

#include <array>
#include <cstring>
#include <string_view>

#include "shared/memory/layout/checks.h"

namespace memslot {
namespace {

constexpr std::array<std::string_view, 3> kSwiGluTensors = {"gate", "up", "down"};
constexpr std::array<std::string_view, 4> kGeluTensors = {"c_fc", "c_fc_bias", "c_proj",
                                                          "c_proj_bias"};

}  // namespace

std::vector<float> to_f32(const ConstHostTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.elements()));
  if (tensor.data == nullptr) return {};
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  } else {
    MEMSLOT_CHECK(tensor.dtype == DType::kBF16);
    const auto* bits = reinterpret_cast<const std::uint16_t*>(tensor.data);
    convert(std::span(bits, values.size()), values);
  }
  return values;
}

Result<MlpView> MlpView::parse(const MemoryPayload& payload) {
  MEMSLOT_TRY(layout::expect_kind(payload, MemoryKind::kMlp));
  MlpView v;
  v.form = payload.signature().form;
  v.d_model = payload.signature().d_model;
  v.d_ff = payload.signature().d_ff;
  const Shape in{v.d_ff, v.d_model};
  const Shape out{v.d_model, v.d_ff};
  if (v.form == MlpForm::kSwiGlu) {
    MEMSLOT_TRY(layout::expect_tensors(payload, kSwiGluTensors));
    MEMSLOT_TRY(v.gate, payload.tensor("gate", in));
    MEMSLOT_TRY(v.up, payload.tensor("up", in));
    MEMSLOT_TRY(v.down, payload.tensor("down", out));
    return v;
  }
  MEMSLOT_TRY(layout::expect_tensors(payload, kGeluTensors));
  MEMSLOT_TRY(v.up, payload.tensor("c_fc", in));
  MEMSLOT_TRY(v.up_bias, payload.tensor("c_fc_bias", Shape{v.d_ff}));
  MEMSLOT_TRY(v.down, payload.tensor("c_proj", out));
  MEMSLOT_TRY(v.down_bias, payload.tensor("c_proj_bias", Shape{v.d_model}));
  return v;
}

MlpValues to_values(const MlpView& view) {
  return {to_f32(view.gate), to_f32(view.up), to_f32(view.down), to_f32(view.up_bias),
          to_f32(view.down_bias)};
}

Result<MemoryPayload> make_mlp_payload(const SlotSignature& signature, DType dtype,
                                       const MlpValues& values) {
  MEMSLOT_CHECK(signature.kind == MemoryKind::kMlp);
  const Shape in{signature.d_ff, signature.d_model};
  const Shape out{signature.d_model, signature.d_ff};
  MemoryPayloadBuilder builder(signature, dtype);
  if (signature.form == MlpForm::kSwiGlu) {
    builder.tensor("gate", in, values.gate).tensor("up", in, values.up);
    builder.tensor("down", out, values.down);
  } else {
    builder.tensor("c_fc", in, values.up)
        .tensor("c_fc_bias", Shape{signature.d_ff}, values.up_bias);
    builder.tensor("c_proj", out, values.down);
    builder.tensor("c_proj_bias", Shape{signature.d_model}, values.down_bias);
  }
  return builder.finish();
}

}  // namespace memslot
