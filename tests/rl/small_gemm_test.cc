#include "rl/small_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "shared/base/rng.h"

namespace memslot {
namespace {

template <class T>
std::vector<T> numbers(std::int64_t count, std::uint64_t stream) {
  std::vector<T> out;
  for (std::int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<T>(2 * uniform01(5, stream, static_cast<std::uint64_t>(i)) - 1));
  }
  return out;
}

// Sizes around the blocks: 4 rows, 16 or 32 columns, 512 deep.
template <class T>
void expect_products(double epsilon) {
  for (const std::int64_t n : {1, 3, 4, 5, 37}) {
    for (const std::int64_t k : {0, 1, 19, 64, 511, 513}) {
      for (const std::int64_t m : {0, 1, 15, 16, 17, 31, 32, 33, 64}) {
        const auto a = numbers<T>(n * k, 1), b = numbers<T>(k * m, 2);
        std::vector<T> plain(static_cast<std::size_t>(n * m), T{7}), transposed = plain;
        small_gemm(n, k, m, Strided<T>{a.data(), k, 1}, b.data(), plain.data());
        small_gemm(n, k, m, Strided<T>{a.data(), 1, n}, b.data(), transposed.data());
        const auto want = [&](std::int64_t i, std::int64_t j, std::int64_t row, std::int64_t col) {
          double sum = 0;
          for (std::int64_t p = 0; p < k; ++p) {
            sum += static_cast<double>(a[static_cast<std::size_t>(i * row + p * col)]) *
                   static_cast<double>(b[static_cast<std::size_t>(p * m + j)]);
          }
          return sum;
        };
        // A sum of k products of numbers up to 1 is off by at most k * epsilon times itself.
        const double tolerance = epsilon * static_cast<double>(k * k + 1);
        for (std::int64_t i = 0; i < n; ++i) {
          for (std::int64_t j = 0; j < m; ++j) {
            const auto at = static_cast<std::size_t>(i * m + j);
            ASSERT_NEAR(static_cast<double>(plain[at]), want(i, j, k, 1), tolerance)
                << n << " " << k << " " << m;
            ASSERT_NEAR(static_cast<double>(transposed[at]), want(i, j, 1, n), tolerance)
                << n << " " << k << " " << m;
          }
        }
      }
    }
  }
}

TEST(SmallGemm, MatchesSumsInDoubleAtAwkwardSizes) {
  expect_products<float>(6e-8);
  expect_products<double>(1.2e-16);
}

TEST(SmallGemm, ARowsBitsDoNotDependOnTheOthers) {
  const auto a = numbers<float>(9 * 70, 1), b = numbers<float>(70 * 33, 2);
  std::vector<float> all(9 * 33), one(33);
  small_gemm(9, 70, 33, Strided<float>{a.data(), 70, 1}, b.data(), all.data());
  for (std::int64_t i = 0; i < 9; ++i) {
    small_gemm(1, 70, 33, Strided<float>{a.data() + i * 70, 70, 1}, b.data(), one.data());
    EXPECT_EQ(std::vector<float>(all.begin() + i * 33, all.begin() + (i + 1) * 33), one);
  }
}

}  // namespace
}  // namespace memslot
