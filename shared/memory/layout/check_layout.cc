#include "shared/memory/layout/check_layout.h"

#include "shared/memory/layout/delta.h"
#include "shared/memory/layout/lora.h"
#include "shared/memory/layout/mlp.h"

namespace memslot {
namespace {

template <class View>
Status parses(const Result<View>& view) {
  return view ? ok() : Status(view.error());
}

// The state names its shape itself: [H, K, V].
Status check_delta_state(const MemoryPayload& payload) {
  DeltaShape shape{1, 1, 1, false};
  if (const auto s = payload.tensor("S:f32"); s && s.value().shape.rank() == 3) {
    shape = {s.value().shape[0], s.value().shape[1], s.value().shape[2], false};
  }
  MEMSLOT_TRY(check_delta_shape(shape));
  return parses(DeltaStateView::parse(payload, shape));
}

}  // namespace

Status check_layout(const MemoryPayload& payload) {
  switch (payload.kind()) {
    case MemoryKind::kMlp: return parses(MlpView::parse(payload));
    case MemoryKind::kLora: return parses(LoraView::parse(payload));
    case MemoryKind::kDelta:
      return payload.signature().outer.is_zero() ? parses(DeltaOuterView::parse(payload))
                                                 : check_delta_state(payload);
    case MemoryKind::kLinear:
    case MemoryKind::kGatedDelta:
    case MemoryKind::kTttLinear:
    case MemoryKind::kTttMlp:
    case MemoryKind::kTitans:
    case MemoryKind::kLm2:
    case MemoryKind::kPkm: return ok();
  }
  return ok();
}

}  // namespace memslot
