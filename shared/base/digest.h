#pragma once
// Digests. SHA-256 names bytes (identity); XXH3-128 guards them against corruption.
//
// Threads: functions are pure; a Sha256Stream belongs to one thread.
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

struct Sha256 {
  std::array<std::uint8_t, 32> bytes{};
  friend bool operator==(const Sha256&, const Sha256&) = default;
  friend auto operator<=>(const Sha256&, const Sha256&) = default;

  bool is_zero() const { return *this == Sha256{}; }
  std::string hex() const;                            // 64 lower-case digits
  static Result<Sha256> parse(std::string_view hex);  // kInvalidArgument unless 64 hex digits
};

struct Xxh128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Xxh128&, const Xxh128&) = default;
  std::string hex() const;  // 32 lower-case digits, high half first
  static Result<Xxh128> parse(std::string_view hex);
};

Sha256 sha256(std::span<const std::byte> bytes);
Xxh128 xxh128(std::span<const std::byte> bytes);
std::uint64_t xxh3_64(std::span<const std::byte> bytes);

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Incremental SHA-256, for files that are not held in memory at once.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  Sha256Stream& operator=(const Sha256Stream&) = delete;
  void update(std::span<const std::byte> bytes);
  Sha256 finish();  // once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// SHA-256 of a file's bytes. kNotFound, kIo.
Result<Sha256> sha256_of_file(const std::string& path);

}  // namespace memslot
