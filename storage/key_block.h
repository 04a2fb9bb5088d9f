#pragma once
// Key vectors as bytes, for the bank and for export files:
//   u32 dim | u32 rows | f32[rows, dim], little-endian, nothing after.
//
// Limits: 1 <= dim <= 131072, 1 <= rows <= 65536, every |value| <= kMaxKeyValue.
// Threads: pure functions.
#include <cstddef>
#include <span>
#include <vector>

#include "shared/memory/record.h"

namespace memslot {

// kInvalidArgument: outside the limits, or values.size() is no multiple of dim.
Status check_keys(const MemoryKeys& keys);
std::vector<std::byte> encode_keys(const MemoryKeys& keys);        // REQUIRES: check_keys()
Result<MemoryKeys> decode_keys(std::span<const std::byte> bytes);  // kCorruption

}  // namespace memslot
