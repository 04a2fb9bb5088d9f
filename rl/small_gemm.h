#pragma once
// Matrix products of the scorer's sizes (tens of columns, many rows). The BLAS that libtorch finds
// may be the reference one, which is ten times slower at these.
//
//   c(i, j) = sum over p < k, in order, of a(i, p) b(p, j),   i < n, j < m
//
// Each element is summed in the order of p without fused operations: the same bits with every
// vector width, and whatever rows stand beside it.
//
// Threads: pure functions.
#include <cstdint>

namespace memslot {

// a(i, p) = values[i * row + p * column], so that a transposed matrix is one, too.
template <class T>
struct Strided {
  const T* values;
  std::int64_t row, column;
};

// b (k, m) and c (n, m) are dense, row-major.
void small_gemm(std::int64_t n, std::int64_t k, std::int64_t m, Strided<float> a, const float* b,
                float* c);
void small_gemm(std::int64_t n, std::int64_t k, std::int64_t m, Strided<double> a, const double* b,
                double* c);

}  // namespace memslot
