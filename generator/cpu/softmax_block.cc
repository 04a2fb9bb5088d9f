#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/softmax_block.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/row_loss-inl.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

template <class Out>
void put_zeros(Out* out, std::size_t n) {
  const DF d;
  for_vectors(
      n, [&](std::size_t i, std::size_t count) { store_part(d, hn::Zero(d), out + i, count); });
}

// With m' the new maximum, r = e^(m - m') and z = x - m: the sums before are over z, and
// z - (m' - m) is what they should be over:  sum (z - c) e^(z - c) = r (W - c Z),  c = m' - m.
template <class Store>
void add_block(const float* x, std::size_t n, std::int64_t first, SoftmaxRow& row, Store&& put) {
  const DF d;
  const float before = row.highest, highest = row_max(x, n);
  if (highest > before) {
    row.highest = highest;
    row.argmax =
        static_cast<std::int32_t>(first + static_cast<std::int64_t>(first_place(x, n, highest)));
  }
  const bool begun = row.sum > 0;
  const float moved = begun ? row.highest - before : 0.0f;
  row.rescale = begun ? std::exp(-moved) : 0.0f;
  VF weighted[2] = {hn::Zero(d), hn::Zero(d)};
  const float sum = exponential_sum(
      x, n, row.highest, [&](std::size_t i, std::size_t count, VF z, VF e, std::size_t turn) {
        weighted[turn] = hn::MulAdd(z, e, weighted[turn]);
        put(i, count, e);
      });
  row.weighted = row.rescale * (row.weighted - moved * row.sum) +
                 sum_lanes(d, hn::Add(weighted[0], weighted[1]));
  row.sum = row.rescale * row.sum + sum;
}

template <class Out>
void keep_block(const float* x, std::size_t n, std::int64_t first, std::int64_t target,
                SoftmaxRow& row, Out* out) {
  const DF d;
  add_block(x, n, first, row,
            [&](std::size_t i, std::size_t count, VF e) { store_part(d, e, out + i, count); });
  if (target < 0) return put_zeros(out, n);
  if (target >= first && target < first + static_cast<std::int64_t>(n)) out[target - first] = Out{};
}

void softmax_rows(const ConstMatrix& logits, std::int64_t first, const std::int32_t* targets,
                  SoftmaxRow* state, const Matrix& e, std::int64_t begin, std::int64_t end) {
  const auto n = static_cast<std::size_t>(logits.cols);
  for (std::int64_t r = begin; r < end; ++r) {
    const float* x = logits.f32() + r * logits.stride;
    const std::int64_t target = targets[r];
    if (e.rows == 0) {
      add_block(x, n, first, state[r], [](std::size_t, std::size_t, VF) {});
    } else if (e.dtype == DType::kF32) {
      keep_block(x, n, first, target, state[r], e.f32() + r * e.stride);
    } else {
      keep_block(x, n, first, target, state[r], e.bf16() + r * e.stride);
    }
    if (target >= first && target < first + logits.cols) state[r].target = x[target - first];
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(softmax_rows);
}  // namespace cpu

void CpuBackend::softmax_block(ConstMatrix logits, std::int64_t first,
                               std::span<const std::int32_t> targets, std::span<SoftmaxRow> state,
                               Matrix e) {
  MEMSLOT_CHECK(logits.dtype == DType::kF32 && logits.cols > 0 && first >= 0);
  MEMSLOT_CHECK(std::ssize(targets) == logits.rows && std::ssize(state) == logits.rows);
  MEMSLOT_CHECK(e.rows == 0 || (e.rows == logits.rows && e.cols == logits.cols));
  rows(logits.rows, 16 * logits.cols, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(cpu::softmax_rows)
    (logits, first, targets.data(), state.data(), e, begin, end);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
