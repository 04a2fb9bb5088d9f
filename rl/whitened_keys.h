#pragma once
// All keys of one memory in the whitened space, and their mean. There are very many of them, so
// that they are held as bf16: a product of unit vectors is off by at most 2^-9 for it, and by far
// less as a rule.
//
// Threads: pure functions.
#include <span>
#include <vector>

#include "rl/bf16_product.h"
#include "rl/whitening.h"

namespace memslot {

struct WhitenedKeys {
  std::vector<std::uint16_t> white;  // (n, W) bf16
  std::vector<float> reduced;        // (n, R)
  std::vector<float> mean;           // (R) of the reduced ones, length 1; empty without keys
};

// `keys` (n, D) raw. REQUIRES: D is whitening.dim(), where n is not 0.
WhitenedKeys whiten_keys(const Whitening& whitening, std::span<const float> keys);

// The largest product of `query` (W) with a row of `white` (n, W); 0 without rows or query.
float best_product(std::span<const std::uint16_t> white, const Bf16Product& query);

}  // namespace memslot
