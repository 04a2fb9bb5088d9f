#include "generator/slot/any_memory.h"

#include <string>
#include <utility>

namespace memslot {
namespace {

template <DeviceMemory M>
Result<AnyMemory> load_as(const MemoryPayload& payload, const MemoryPayload* outer,
                          Backend& backend, DType weights) {
  MEMSLOT_TRY(M memory, M::load(payload, outer, backend, weights));
  return AnyMemory{std::move(memory)};
}

}  // namespace

Result<AnyMemory> load_any(const MemoryPayload& payload, const MemoryPayload* outer,
                           Backend& backend, DType weights) {
  switch (payload.kind()) {
    case MemoryKind::kMlp: return load_as<MlpMemory>(payload, outer, backend, weights);
    case MemoryKind::kLora: return load_as<LoraMemory>(payload, outer, backend, weights);
    case MemoryKind::kDelta: return load_as<DeltaMemory>(payload, outer, backend, weights);
    case MemoryKind::kLinear:
    case MemoryKind::kGatedDelta:
    case MemoryKind::kTttLinear:
    case MemoryKind::kTttMlp:
    case MemoryKind::kTitans:
    case MemoryKind::kLm2:
    case MemoryKind::kPkm: break;
  }
  return Error{ErrorCode::kNotSupported, "memory kind: expected mlp, lora or delta, found " +
                                             std::string(memory_kind_name(payload.kind()))};
}

}  // namespace memslot
