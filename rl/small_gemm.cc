#include "rl/small_gemm.h"

#include <algorithm>
#include <cstring>

#include "shared/base/target_clones.h"

namespace memslot {
namespace {

// One block: kRows rows by two vectors of columns, which are the accumulators.
constexpr std::int64_t kRows = 4;
constexpr std::int64_t kBytes = 64;   // of a vector: one register with AVX-512, two with AVX2
constexpr std::int64_t kDepth = 512;  // rows of b at a time

template <class T>
using Vector __attribute__((vector_size(kBytes))) = T;

template <class T>
constexpr std::int64_t kLanes = kBytes / static_cast<std::int64_t>(sizeof(T));

// c += a b for `rows` rows and one panel (k, 2 vectors) of b.
template <class T>
[[gnu::always_inline]] inline void block(std::int64_t k, Strided<T> a, std::int64_t rows,
                                         const T* panel, T* c, std::int64_t c_row,
                                         std::int64_t columns) {
  using V = Vector<T>;
  V sum[kRows][2] = {};
  T kept[2 * kLanes<T>];
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(T);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memset(kept, 0, sizeof kept);
    std::memcpy(kept, c + r * c_row, bytes);
    std::memcpy(sum[r], kept, sizeof kept);
  }
  // Rows beyond the last one repeat it; they are not stored.
  const T* row[kRows];
  for (std::int64_t r = 0; r < kRows; ++r) row[r] = a.values + std::min(r, rows - 1) * a.row;
  for (std::int64_t p = 0; p < k; ++p) {
    V b[2];
    std::memcpy(b, panel + p * 2 * kLanes<T>, sizeof b);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const T factor = row[r][p * a.column];
      sum[r][0] += factor * b[0];
      sum[r][1] += factor * b[1];
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(kept, sum[r], sizeof kept);
    std::memcpy(c + r * c_row, kept, bytes);
  }
}

template <class T>
[[gnu::always_inline]] inline void product(std::int64_t n, std::int64_t k, std::int64_t m,
                                           Strided<T> a, const T* b, T* c) {
  constexpr std::int64_t kColumns = 2 * kLanes<T>;
  alignas(kBytes) T panel[kDepth * kColumns];
  std::fill(c, c + n * m, T{0});
  for (std::int64_t j = 0; j < m; j += kColumns) {
    const std::int64_t columns = std::min(kColumns, m - j);
    for (std::int64_t p = 0; p < k; p += kDepth) {
      const std::int64_t depth = std::min(kDepth, k - p);
      for (std::int64_t q = 0; q < depth; ++q) {
        T* to = panel + q * kColumns;
        std::fill(std::copy_n(b + (p + q) * m + j, columns, to), to + kColumns, T{0});
      }
      for (std::int64_t i = 0; i < n; i += kRows) {
        block<T>(depth, {a.values + i * a.row + p * a.column, a.row, a.column},
                 std::min(kRows, n - i), panel, c + i * m + j, m, columns);
      }
    }
  }
}

}  // namespace

// Cloned per instruction set: the loader picks one. Lanes are columns, so that all agree.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
void small_gemm(std::int64_t n, std::int64_t k, std::int64_t m, Strided<float> a, const float* b,
                float* c) {
  product(n, k, m, a, b, c);
}

MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
void small_gemm(std::int64_t n, std::int64_t k, std::int64_t m, Strided<double> a, const double* b,
                double* c) {
  product(n, k, m, a, b, c);
}

}  // namespace memslot
