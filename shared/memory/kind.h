#pragma once
// The closed set of memory kinds. Equations: docs/architecture.md and the slot of each kind.
#include <cstdint>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

enum class MemoryKind : std::uint8_t {  // values are on disk and on the wire; append only
  kMlp = 1,
  kLora = 2,
  kLinear = 3,
  kDelta = 4,
  kGatedDelta = 5,
  kTttLinear = 6,
  kTttMlp = 7,
  kTitans = 8,
  kLm2 = 9,
  kPkm = 10,
};

std::string_view memory_kind_name(MemoryKind kind);  // "mlp", "lora", "delta", ...
Result<MemoryKind> parse_memory_kind(std::string_view name);

// True for the kinds whose state changes while the model reads and writes (linear ... lm2). Their
// state belongs to a session; the others are parameters that any session may share.
bool is_stateful(MemoryKind kind);

// True if this build can load, run and store the kind (mlp, lora and delta today).
bool is_implemented(MemoryKind kind);

}  // namespace memslot
