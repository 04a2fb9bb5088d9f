#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/packed_weight.h"

namespace memslot {

// y[M,N] = x[M,K] w[K,N]; oneDNN multiplies equal types, so x is converted to the weights' first,
// and a bf16 result of f32 weights is rounded afterwards. Both conversions work row by row.
void CpuBackend::linear(ConstMatrix x, const PackedWeight& w, Matrix y, const float* bias,
                        bool accumulate) {
  MEMSLOT_CHECK(x.cols == w.inputs() && y.cols == w.outputs() && x.rows == y.rows);
  MEMSLOT_CHECK(!accumulate || y.dtype == DType::kF32);
  if (x.rows == 0) return;
  if (x.dtype != w.dtype()) {
    const Matrix converted = scratch(0, w.dtype(), x.rows, x.cols);
    copy(x, converted);
    x = converted;
  }
  const bool round_after = w.dtype() == DType::kF32 && y.dtype == DType::kBF16;
  const Matrix out = round_after ? scratch(1, DType::kF32, y.rows, y.cols) : y;
  const cpu::MatmulShape shape{.m = x.rows, .n = y.cols, .k = x.cols,
                               .x = x.dtype, .w = w.dtype(), .y = out.dtype,
                               .x_row = x.stride, .y_row = out.stride,
                               .bias = bias != nullptr, .accumulate = accumulate};
  const auto& packed = static_cast<const cpu::CpuPackedWeight&>(w);
  matmul_.run(shape, x.data, &packed.memory(), nullptr, out.data, bias);
  if (round_after) copy(out, y);
}

}  // namespace memslot
