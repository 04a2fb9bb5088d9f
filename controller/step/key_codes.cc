#include "controller/step/key_codes.h"

#include <algorithm>
#include <cmath>

#include "shared/base/error.h"
#include "shared/base/target_clones.h"

namespace memslot {
namespace {

constexpr std::size_t kBlock = 256;  // rows scored at once

// Cloned per instruction set: the loader picks one. Products of bytes fit 16 bits, and the sums of
// at most 2^16 of them 32.
MEMSLOT_TARGET_CLONES("avx2", "default")
void products(const std::int8_t* rows, std::size_t count, const std::int16_t* query,
              std::size_t dim, std::int32_t* out) {
  for (std::size_t r = 0; r < count; ++r) {
    const std::int8_t* row = rows + r * dim;
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < dim; ++j) {
      const std::int16_t code = row[j];  // so that pairs are multiplied and added in one go
      sum += std::int32_t{code} * std::int32_t{query[j]};
    }
    out[r] = sum;
  }
}

float encode(std::span<const float> row, std::int16_t* codes) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::abs(x));
  for (std::size_t j = 0; j < row.size(); ++j) {
    codes[j] = most > 0 ? static_cast<std::int16_t>(std::lround(127.0f * row[j] / most)) : 0;
  }
  return most / 127.0f;
}

}  // namespace

void KeyCodes::add(std::span<const float> row) {
  MEMSLOT_CHECK(row.size() == dim_);
  std::vector<std::int16_t> codes(dim_);
  scales_.push_back(encode(row, codes.data()));
  for (const std::int16_t c : codes) codes_.push_back(static_cast<std::int8_t>(c));
}

void KeyCodes::drop(std::size_t row) { scales_[row] = -1; }

void KeyCodes::clear() {
  codes_.clear();
  scales_.clear();
}

std::vector<std::pair<float, std::uint32_t>> KeyCodes::scan(std::span<const float> query,
                                                            std::size_t count) const {
  std::vector<std::int16_t> codes(dim_);
  const float query_scale = encode(query, codes.data());
  using Found = std::pair<float, std::uint32_t>;
  const auto better = [](const Found& a, const Found& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  // A bounded buffer that is cut to the best half-way instead of a heap: most rows only meet one
  // comparison.
  std::vector<Found> best;
  best.reserve(2 * count + kBlock);
  float least = -2;
  const auto cut = [&] {
    if (best.size() <= count) return;
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(count) - 1,
                     best.end(), better);
    best.resize(count);
    least = best.back().first;
  };
  std::int32_t sums[kBlock];
  for (std::size_t from = 0; from < rows(); from += kBlock) {
    const std::size_t n = std::min(kBlock, rows() - from);
    products(codes_.data() + from * dim_, n, codes.data(), dim_, sums);
    for (std::size_t i = 0; i < n; ++i) {
      const float scale = scales_[from + i];
      const float product = static_cast<float>(sums[i]) * scale * query_scale;
      if (scale >= 0 && product > least) {
        best.emplace_back(product, static_cast<std::uint32_t>(from + i));
      }
    }
    if (best.size() >= 2 * count) cut();
  }
  cut();
  std::sort(best.begin(), best.end(), better);
  return best;
}

}  // namespace memslot
