#include "storage/key_block.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace memslot {
namespace {

static_assert(std::endian::native == std::endian::little, "key blocks are little-endian");

constexpr std::uint32_t kMaxDim = 1U << 17;
constexpr std::size_t kMaxRows = 1U << 16;
constexpr std::size_t kHeaderBytes = 8;

}  // namespace

Status check_keys(const MemoryKeys& keys) {
  if (keys.dim == 0 || keys.dim > kMaxDim) return invalid("key dimension", "1 to 131072", keys.dim);
  if (keys.values.empty() || keys.values.size() % keys.dim != 0) {
    return invalid("key values", "one or more rows of " + std::to_string(keys.dim),
                   keys.values.size());
  }
  const std::size_t rows = keys.values.size() / keys.dim;
  if (rows > kMaxRows) return invalid("keys", "at most 65536", rows);
  const auto worst = std::ranges::find_if_not(
      keys.values, [](float v) { return std::abs(v) <= kMaxKeyValue; });  // a NaN is not
  if (worst != keys.values.end()) {
    return invalid("key values", "finite numbers of at most 1000000", *worst);
  }
  return ok();
}

std::vector<std::byte> encode_keys(const MemoryKeys& keys) {
  const std::uint32_t header[2] = {keys.dim, keys.rows()};
  std::vector<std::byte> out(kHeaderBytes + keys.values.size() * sizeof(float));
  std::memcpy(out.data(), header, kHeaderBytes);
  std::memcpy(out.data() + kHeaderBytes, keys.values.data(), out.size() - kHeaderBytes);
  return out;
}

Result<MemoryKeys> decode_keys(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) return corrupt("key block bytes", "8 or more", bytes.size());
  std::uint32_t header[2];
  std::memcpy(header, bytes.data(), kHeaderBytes);
  const auto [dim, rows] = header;
  // The limits are what makes the product below safe.
  if (dim == 0 || dim > kMaxDim) return corrupt("key dimension", "1 to 131072", dim);
  if (rows == 0 || rows > kMaxRows) return corrupt("keys", "1 to 65536", rows);
  const std::size_t expected = kHeaderBytes + std::size_t{dim} * rows * sizeof(float);
  if (bytes.size() != expected) return corrupt("key block bytes", expected, bytes.size());
  MemoryKeys keys{dim, std::vector<float>(std::size_t{dim} * rows)};
  std::memcpy(keys.values.data(), bytes.data() + kHeaderBytes, expected - kHeaderBytes);
  if (auto checked = check_keys(keys); !checked) {
    return Error{ErrorCode::kCorruption, checked.error().message};
  }
  return keys;
}

}  // namespace memslot
