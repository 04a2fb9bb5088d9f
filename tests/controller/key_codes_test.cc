#include "controller/step/key_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "shared/base/rng.h"

namespace memslot {
namespace {

using Found = std::vector<std::pair<float, std::uint32_t>>;

std::vector<float> row_of(std::size_t dim, std::uint64_t number) {
  std::vector<float> out(dim);
  for (std::size_t j = 0; j < dim; ++j) {
    out[j] = static_cast<float>(2 * uniform01(7, number, j) - 1);
  }
  return out;
}

// The header's formula, written down plainly.
struct Coded {
  std::vector<int> codes;
  float scale = 0;
};
Coded code(const std::vector<float>& row, float steps) {
  float most = 0;
  for (const float x : row) most = std::max(most, std::abs(x));
  Coded out{{}, most / steps};
  for (const float x : row) {
    out.codes.push_back(most > 0 ? static_cast<int>(std::lround(steps * x / most)) : 0);
  }
  return out;
}

// All rows but the `dropped` ones, the best `count` of them, by row.
Found expected(const std::vector<std::vector<float>>& rows, const std::vector<bool>& dropped,
               const std::vector<float>& query, std::size_t count) {
  const Coded q = code(query, 127);
  Found all;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (dropped[r]) continue;
    const Coded row = code(rows[r], 7);
    int sum = 0;
    for (std::size_t j = 0; j < query.size(); ++j) sum += row.codes[j] * q.codes[j];
    all.emplace_back(static_cast<float>(sum) * row.scale * q.scale, r);
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  all.resize(std::min(count, all.size()));
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  return all;
}

// Widths that no group of four, and counts that no group of rows divides; of many equal rows the
// first.
TEST(KeyCodes, EveryKernelFindsWhatTheFormulaSays) {
  for (const KeyCodes::Kernel kernel : KeyCodes::kernels()) {
    for (const std::size_t dim : {1u, 3u, 4u, 37u, 96u, 130u}) {
      for (const std::size_t count : {1u, 15u, 16u, 17u, 33u, 2000u}) {
        KeyCodes codes(dim, kernel);
        std::vector<std::vector<float>> rows;
        std::vector<bool> dropped(count);
        for (std::size_t r = 0; r < count; ++r) {
          rows.push_back(row_of(dim, r % 3 == 0 ? 0 : r));
          codes.add(rows.back());
        }
        for (std::size_t r = 5; r < count; r += 7) {
          codes.drop(r);
          dropped[r] = true;
        }
        for (const std::size_t wanted : {1u, 10u, 64u}) {
          const auto query = row_of(dim, 1u << 20);
          EXPECT_EQ(codes.scan(query, wanted), expected(rows, dropped, query, wanted))
              << "kernel " << static_cast<int>(kernel) << ", " << dim << " dimensions, " << count
              << " rows";
        }
      }
    }
  }
}

// The sample of every sixteenth row says that far too much is good, or far too little.
TEST(KeyCodes, ASampleThatMisleadsCostsOnlyTime) {
  constexpr std::size_t kDim = 16, kRows = 2000;
  for (const std::size_t good : {0u, 7u}) {
    KeyCodes codes(kDim);
    std::vector<std::vector<float>> rows;
    const auto query = row_of(kDim, 1u << 20);
    for (std::size_t r = 0; r < kRows; ++r) {
      rows.push_back(row_of(kDim, r));
      for (std::size_t j = 0; j < kDim; ++j) {
        rows[r][j] = 0.1f * rows[r][j] + (r % 16 == good ? 1.0f : -1.0f) * query[j];
      }
      codes.add(rows.back());
    }
    for (const std::size_t wanted : {1u, 64u, 200u}) {
      EXPECT_EQ(codes.scan(query, wanted), expected(rows, std::vector<bool>(kRows), query, wanted));
    }
  }
}

TEST(KeyCodes, AQueryOfZerosAndNoRowsAreNoSpecialCase) {
  KeyCodes codes(8);
  EXPECT_TRUE(codes.scan(std::vector<float>(8), 4).empty());
  codes.add(row_of(8, 1));
  codes.add(std::vector<float>(8));
  EXPECT_EQ(codes.scan(std::vector<float>(8), 1), (Found{{0.0f, 0}}));
  codes.clear();
  EXPECT_EQ(codes.rows(), 0u);
  EXPECT_TRUE(codes.scan(row_of(8, 1), 4).empty());
}

}  // namespace
}  // namespace memslot
