#include "shared/memory/layout/lora.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "shared/memory/layout/checks.h"
#include "shared/memory/layout/mlp.h"

namespace memslot {
namespace {

constexpr double kMaxAlpha = 1e6;
constexpr std::array<std::string_view, 6> kSwiGluTensors = {"gate.A", "gate.B", "up.A",
                                                            "up.B",   "down.A", "down.B"};
constexpr std::array<std::string_view, 4> kGeluTensors = {"up.A", "up.B", "down.A", "down.B"};

Result<LoraView::Map> parse_map(const MemoryPayload& payload, const std::string& name,
                                std::int64_t rank, std::int64_t inputs, std::int64_t outputs) {
  LoraView::Map map;
  MEMSLOT_TRY(map.a, payload.tensor(name + ".A", Shape{rank, inputs}));
  MEMSLOT_TRY(map.b, payload.tensor(name + ".B", Shape{outputs, rank}));
  return map;
}

void add_map(MemoryPayloadBuilder& builder, const std::string& name, const LoraValues::Map& map,
             std::int64_t rank, std::int64_t inputs, std::int64_t outputs) {
  builder.tensor(name + ".A", Shape{rank, inputs}, map.a);
  builder.tensor(name + ".B", Shape{outputs, rank}, map.b);
}

}  // namespace

Result<LoraView> LoraView::parse(const MemoryPayload& payload) {
  MEMSLOT_TRY(layout::expect_kind(payload, MemoryKind::kLora));
  LoraView v;
  v.form = payload.signature().form;
  v.d_model = payload.signature().d_model;
  v.d_ff = payload.signature().d_ff;
  const bool gated = v.form == MlpForm::kSwiGlu;
  MEMSLOT_TRY(gated ? layout::expect_tensors(payload, kSwiGluTensors)
                    : layout::expect_tensors(payload, kGeluTensors));
  const std::int64_t limit = std::min({kMaxLoraRank, v.d_model, v.d_ff});
  MEMSLOT_TRY(v.rank, layout::integer(payload, "rank", 1, limit));
  MEMSLOT_TRY(v.alpha, layout::number(payload, "alpha", 1e-6, kMaxAlpha));
  if (gated) {
    MEMSLOT_TRY(v.gate, parse_map(payload, "gate", v.rank, v.d_model, v.d_ff));
  }
  MEMSLOT_TRY(v.up, parse_map(payload, "up", v.rank, v.d_model, v.d_ff));
  MEMSLOT_TRY(v.down, parse_map(payload, "down", v.rank, v.d_ff, v.d_model));
  return v;
}

LoraValues to_values(const LoraView& view) {
  LoraValues values;
  values.rank = view.rank;
  values.alpha = view.alpha;
  values.gate = {to_f32(view.gate.a), to_f32(view.gate.b)};
  values.up = {to_f32(view.up.a), to_f32(view.up.b)};
  values.down = {to_f32(view.down.a), to_f32(view.down.b)};
  return values;
}

Result<MemoryPayload> make_lora_payload(const SlotSignature& signature, DType dtype,
                                        const LoraValues& values) {
  MEMSLOT_CHECK(signature.kind == MemoryKind::kLora);
  const std::int64_t d = signature.d_model, f = signature.d_ff, r = values.rank;
  MemoryPayloadBuilder builder(signature, dtype);
  builder.scalar("rank", static_cast<double>(r)).scalar("alpha", values.alpha);
  if (signature.form == MlpForm::kSwiGlu) add_map(builder, "gate", values.gate, r, d, f);
  add_map(builder, "up", values.up, r, d, f);
  add_map(builder, "down", values.down, r, f, d);
  return builder.finish();
}

}  // namespace memslot
