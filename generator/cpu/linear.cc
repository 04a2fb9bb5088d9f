#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/packed_weight.h"

namespace memslot {

// y[M,N] = x[M,K] w[K,N]. oneDNN's fast code multiplies equal types and dense rows only (rows with
// gaps fall to its reference loops, a thousand times slower), so other operands go through dense
// scratch first. Copies and conversions work element by element: the bits stay the row's own.
void CpuBackend::linear(ConstMatrix x, const PackedWeight& w, Matrix y, const float* bias,
                        bool accumulate) {
  MEMSLOT_CHECK(x.cols == w.inputs() && y.cols == w.outputs() && x.rows == y.rows);
  MEMSLOT_CHECK(!accumulate || y.dtype == DType::kF32);
  if (x.rows == 0) return;
  const auto has_gaps = [](const ConstMatrix& m) { return m.rows > 1 && m.stride != m.cols; };
  if (x.dtype != w.dtype() || has_gaps(x)) {
    const Matrix dense = scratch(0, w.dtype(), x.rows, x.cols);
    copy(x, dense);
    x = dense;
  }
  const bool round_after = w.dtype() == DType::kF32 && y.dtype == DType::kBF16;
  const bool indirect = round_after || has_gaps(y);
  const Matrix out = indirect ? scratch(1, round_after ? DType::kF32 : y.dtype, y.rows, y.cols) : y;
  if (indirect && accumulate) copy(y, out);
  const cpu::MatmulShape shape{.m = x.rows,
                               .n = y.cols,
                               .k = x.cols,
                               .x = x.dtype,
                               .w = w.dtype(),
                               .y = out.dtype,
                               .x_row = x.cols,
                               .y_row = out.cols,
                               .bias = bias != nullptr,
                               .accumulate = accumulate};
  const auto& packed = static_cast<const cpu::CpuPackedWeight&>(w);
  matmul_.run(shape, x.data, &packed.memory(), nullptr, out.data, bias);
  if (indirect) copy(out, y);
}

}  // namespace memslot
