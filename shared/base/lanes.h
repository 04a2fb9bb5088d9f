#pragma once
// Sixteen floats side by side, whatever the machine's vectors hold: so the order of a sum is the
// same with every instruction set (target_clones.h).
#include <cstddef>
#include <cstring>

namespace memslot {

inline constexpr std::size_t kLanes = 16;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

[[gnu::always_inline]] inline void load_lanes(const float* from, Lanes& to) {
  std::memcpy(&to, from, sizeof(to));
}

// Added up by halves, in registers.
[[gnu::always_inline]] inline float sum_of(const Lanes& lanes) {
  using Half = float __attribute__((vector_size(kLanes / 2 * sizeof(float))));
  Half half = __builtin_shufflevector(lanes, lanes, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(lanes, lanes, 8, 9, 10, 11, 12, 13, 14, 15);
  half += __builtin_shufflevector(half, half, 4, 5, 6, 7, 0, 1, 2, 3);
  half += __builtin_shufflevector(half, half, 2, 3, 0, 1, 6, 7, 4, 5);
  return half[0] + half[1];
}

}  // namespace memslot
