#include "rl/gains/exported_memory.h"

#include <cstring>  // memcpy

namespace memslot::gains_program {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kHeader = 40, kDigest = 32;

template <class T>
T number_at(Bytes file, std::size_t at) {
  T out{};
  std::memcpy(&out, file.data() + at, sizeof(T));
  return out;
}

Result<MemoryKeys> read_keys(Bytes block) {
  MemoryKeys keys;
  if (block.empty()) return keys;
  if (block.size() < 8) return corrupt("exported keys", "8 bytes or more", block.size());
  keys.dim = number_at<std::uint32_t>(block, 0);
  const std::uint64_t rows = number_at<std::uint32_t>(block, 4);
  const std::uint64_t values = rows * keys.dim;  // fits; four times as many need not
  if (values == 0 || values != (block.size() - 8) / 4 || block.size() % 4 != 0) {
    return corrupt("exported keys", std::to_string((block.size() - 8) / 4) + " numbers, not 0",
                   values);
  }
  keys.values.resize(values);
  std::memcpy(keys.values.data(), block.data() + 8, block.size() - 8);
  return keys;
}

}  // namespace

Result<ExportedMemory> read_export(Bytes file) {
  if (file.size() < kHeader + kDigest || std::memcmp(file.data(), "MSE1", 4) != 0) {
    return corrupt("exported memory", "a file that begins with MSE1", "another");
  }
  const Sha256 found = sha256(file.first(file.size() - kDigest));
  if (std::memcmp(found.bytes.data(), file.data() + file.size() - kDigest, kDigest) != 0) {
    return corrupt("exported memory's digest", "that of its bytes", "another");
  }
  std::uint64_t sizes[4], left = file.size() - kHeader - kDigest;
  for (std::size_t i = 0; i < 4; ++i) {
    sizes[i] = number_at<std::uint64_t>(file, 8 + 8 * i);
    if (sizes[i] > left) return corrupt("exported memory's lengths", left, sizes[i]);
    left -= sizes[i];
  }
  ExportedMemory out;
  const Bytes manifest = file.subspan(kHeader, sizes[0]);
  MEMSLOT_TRY(out.version, memory_version_from_json(
                               {reinterpret_cast<const char*>(manifest.data()), manifest.size()}));
  MEMSLOT_TRY(out.keys, read_keys(file.subspan(kHeader + sizes[0] + sizes[1], sizes[2])));
  return out;
}

}  // namespace memslot::gains_program
