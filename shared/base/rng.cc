#include "shared/base/rng.h"

#include <random>

namespace memslot {

std::array<std::uint32_t, 4> philox4x32(std::uint64_t key, std::uint64_t counter_high,
                                        std::uint64_t counter_low) {
  constexpr std::uint64_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;  // multipliers, Salmon et al. table 2
  constexpr std::uint32_t kW0 = 0x9E3779B9, kW1 = 0xBB67AE85;  // Weyl constants
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> c{
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = kM0 * c[0], p1 = kM1 * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += kW0;
    k1 += kW1;
  }
  return c;
}

namespace {
std::uint64_t bits64(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  const auto r = philox4x32(seed, stream, counter);
  return static_cast<std::uint64_t>(r[0]) << 32 | r[1];
}
}  // namespace

double uniform01(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  return static_cast<double>(bits64(seed, stream, counter) >> 11) * 0x1.0p-53;
}

std::uint64_t uniform_below(std::uint64_t n, std::uint64_t seed, std::uint64_t stream,
                            std::uint64_t counter) {
  // Multiply-shift: the bias is below n / 2^64.
  __extension__ using u128 = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<u128>(bits64(seed, stream, counter)) * n) >> 64);
}

std::uint64_t random_nonce() {
  std::random_device device;
  return static_cast<std::uint64_t>(device()) << 32 | device();
}

}  // namespace memslot
