#pragma once
// Bytes in JSON: base64 (RFC 4648, section 4, with padding).
//
// Errors:  kCorruption for a length, character or padding that no encoder writes.
// Threads: pure functions.
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

std::string to_base64(std::span<const std::byte> bytes);
Result<std::vector<std::byte>> from_base64(std::string_view text);

// f32 values as little-endian bytes, and back. kCorruption where there are not `count`.
std::string floats_to_base64(std::span<const float> values);
Result<std::vector<float>> floats_from_base64(std::string_view text, std::size_t count);

}  // namespace memslot
