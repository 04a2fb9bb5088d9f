#pragma once
// What every layout checks in the same way.
//
// Threads: pure functions.
#include <cstdint>
#include <span>
#include <string_view>

#include "shared/memory/payload.h"

namespace memslot::layout {

// kMismatch if the payload is of another kind.
Status expect_kind(const MemoryPayload& payload, MemoryKind kind);
// kMismatch, with both lists, if the payload has other tensors than `names` (each of them once).
Status expect_tensors(const MemoryPayload& payload, std::span<const std::string_view> names);
// A scalar that is a whole number within [low, high]; kCorruption.
Result<std::int64_t> integer(const MemoryPayload& payload, std::string_view name, std::int64_t low,
                             std::int64_t high);
// A finite scalar within [low, high]; kCorruption.
Result<double> number(const MemoryPayload& payload, std::string_view name, double low, double high);

}  // namespace memslot::layout
