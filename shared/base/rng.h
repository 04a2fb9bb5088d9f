#pragma once
// Counter-based random numbers: a value depends only on (seed, stream, counter), so a decision can
// be recomputed identically after a restart, whatever else was sampled in between.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).
// Threads: pure functions.
#include <array>
#include <cstdint>

namespace memslot {

// 128 random bits for (key, counter).
std::array<std::uint32_t, 4> philox4x32(std::uint64_t key, std::uint64_t counter_high,
                                        std::uint64_t counter_low);

// Uniform in [0, 1) with 53 bits.
double uniform01(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter);

// Uniform in [0, n). REQUIRES: n > 0.
std::uint64_t uniform_below(std::uint64_t n, std::uint64_t seed, std::uint64_t stream,
                            std::uint64_t counter);

// 64 bits from the operating system; for nonces and incarnations, never for decisions.
std::uint64_t random_nonce();

}  // namespace memslot
