#include "generator/cpu/cpu_backend.h"

namespace memslot {

void CpuBackend::matmul_tn(ConstMatrix a, ConstMatrix b, Matrix c, bool accumulate) {
  MEMSLOT_CHECK(a.rows == b.rows && c.rows == a.cols && c.cols == b.cols);
  MEMSLOT_CHECK(a.dtype == b.dtype && c.dtype == DType::kF32);
  cpu::MatmulShape shape;
  shape.m = a.cols;
  shape.n = b.cols;
  shape.k = a.rows;
  shape.x = a.dtype;
  shape.w = b.dtype;
  shape.x_row = 1;  // a read column by column: its transpose
  shape.x_col = a.stride;
  shape.w_row = b.stride;
  shape.w_col = 1;
  shape.y_row = c.stride;
  shape.accumulate = accumulate;
  matmul_.run(shape, a.data, nullptr, b.data, c.data, nullptr);
}

}  // namespace memslot
