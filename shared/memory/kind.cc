#include "shared/memory/kind.h"

namespace memslot {
namespace {

constexpr MemoryKind kAllKinds[] = {
    MemoryKind::kMlp,        MemoryKind::kLora,      MemoryKind::kLinear, MemoryKind::kDelta,
    MemoryKind::kGatedDelta, MemoryKind::kTttLinear, MemoryKind::kTttMlp, MemoryKind::kTitans,
    MemoryKind::kLm2,        MemoryKind::kPkm};

}  // namespace

std::string_view memory_kind_name(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kMlp: return "mlp";
    case MemoryKind::kLora: return "lora";
    case MemoryKind::kLinear: return "linear";
    case MemoryKind::kDelta: return "delta";
    case MemoryKind::kGatedDelta: return "gated_delta";
    case MemoryKind::kTttLinear: return "ttt_linear";
    case MemoryKind::kTttMlp: return "ttt_mlp";
    case MemoryKind::kTitans: return "titans";
    case MemoryKind::kLm2: return "lm2";
    case MemoryKind::kPkm: return "pkm";
  }
  return "unknown";
}

Result<MemoryKind> parse_memory_kind(std::string_view name) {
  for (const auto kind : kAllKinds) {
    if (name == memory_kind_name(kind)) return kind;
  }
  return invalid("memory kind",
                 "mlp, lora, linear, delta, gated_delta, ttt_linear, ttt_mlp, titans, lm2 or pkm",
                 name);
}

bool is_stateful(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kMlp:
    case MemoryKind::kLora:
    case MemoryKind::kPkm: return false;
    case MemoryKind::kLinear:
    case MemoryKind::kDelta:
    case MemoryKind::kGatedDelta:
    case MemoryKind::kTttLinear:
    case MemoryKind::kTttMlp:
    case MemoryKind::kTitans:
    case MemoryKind::kLm2: return true;
  }
  return false;
}

bool is_implemented(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kMlp:
    case MemoryKind::kLora:
    case MemoryKind::kDelta: return true;
    case MemoryKind::kLinear:
    case MemoryKind::kGatedDelta:
    case MemoryKind::kTttLinear:
    case MemoryKind::kTttMlp:
    case MemoryKind::kTitans:
    case MemoryKind::kLm2:
    case MemoryKind::kPkm: return false;
  }
  return false;
}

}  // namespace memslot
