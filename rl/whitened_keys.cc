#include "rl/whitened_keys.h"

#include <algorithm>

#include "shared/base/error.h"
#include "shared/tensor/dtype.h"

namespace memslot {

WhitenedKeys whiten_keys(const Whitening& whitening, std::span<const float> keys) {
  WhitenedKeys out;
  if (keys.empty()) return out;
  const std::size_t d = whitening.dim(), w = whitening.white_dim(), r = whitening.reduced_dim();
  MEMSLOT_CHECK(d > 0 && keys.size() % d == 0);
  const std::size_t n = keys.size() / d;
  out.white.resize(n * w);
  out.reduced.resize(n * r);
  out.mean.assign(r, 0.0f);
  std::vector<float> white(w);
  for (std::size_t row = 0; row < n; ++row) {
    const std::span reduced(out.reduced.data() + row * r, r);
    whitening.apply(keys.subspan(row * d, d), white);
    whitening.reduce(white, reduced);
    convert(white, std::span(out.white).subspan(row * w, w));
    for (std::size_t j = 0; j < r; ++j) out.mean[j] += reduced[j];
  }
  normalise(out.mean);
  return out;
}

float best_product(std::span<const std::uint16_t> white, const Bf16Product& query) {
  if (white.empty() || query.size() == 0) return 0;
  MEMSLOT_CHECK(white.size() % query.size() == 0);
  float best = -1;
  for (std::size_t at = 0; at < white.size(); at += query.size()) {
    best = std::max(best, query(white.data() + at));
  }
  return best;
}

}  // namespace memslot
