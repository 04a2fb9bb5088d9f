#pragma once
// The order in which attention sums over positions: in blocks counted from position 0, so that a
// row's arithmetic depends on its own position only and not on what is computed with it.
#include <cstdint>

namespace memslot::kernels {

inline constexpr std::int64_t kAttentionBlock = 64;  // positions

}  // namespace memslot::kernels
