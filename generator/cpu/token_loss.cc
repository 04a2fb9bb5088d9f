#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/token_loss.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/row_loss-inl.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

struct RowLoss {
  float log_sum;  // log sum exp(x - highest)
  float highest;
  float entropy;
  std::int32_t argmax;
};

// With z = x - max: Z = sum e^z, entropy = log Z - sum z e^z / Z.
RowLoss row_loss(const float* x, std::size_t n, bool want_argmax) {
  const DF d;
  RowLoss loss{0, row_max(x, n), 0, 0};
  VF weighted[2] = {hn::Zero(d), hn::Zero(d)};
  const float sum = exponential_sum(x, n, loss.highest,
                                    [&](std::size_t, std::size_t, VF z, VF e, std::size_t turn) {
                                      weighted[turn] = hn::MulAdd(z, e, weighted[turn]);
                                    });
  loss.log_sum = std::log(sum);
  loss.entropy =
      std::max(0.0f, loss.log_sum - sum_lanes(d, hn::Add(weighted[0], weighted[1])) / sum);
  if (want_argmax) loss.argmax = static_cast<std::int32_t>(first_place(x, n, loss.highest));
  return loss;
}

void token_loss_rows(const ConstMatrix& logits, const std::int32_t* targets, float* nll,
                     float* entropy, std::int32_t* argmax, std::int64_t first, std::int64_t last) {
  for (std::int64_t r = first; r < last; ++r) {
    const float* x = logits.f32() + r * logits.stride;
    const auto loss = row_loss(x, static_cast<std::size_t>(logits.cols), argmax != nullptr);
    if (nll != nullptr) {
      const std::int32_t target = targets == nullptr ? -1 : targets[r];
      nll[r] = target < 0 ? 0.0f : loss.log_sum - (x[target] - loss.highest);
    }
    if (entropy != nullptr) entropy[r] = loss.entropy;
    if (argmax != nullptr) argmax[r] = loss.argmax;
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(token_loss_rows);
}  // namespace cpu

void CpuBackend::token_loss(ConstMatrix logits, std::span<const std::int32_t> targets, float* nll,
                            float* entropy, std::int32_t* argmax) {
  MEMSLOT_CHECK(logits.dtype == DType::kF32);
  const std::int32_t* wanted = targets.empty() ? nullptr : targets.data();
  MEMSLOT_CHECK(nll == nullptr || std::ssize(targets) == logits.rows);
  for (const auto target : targets) MEMSLOT_CHECK(target < logits.cols);
  rows(logits.rows, 4 * logits.cols, [&](std::int64_t first, std::int64_t last) {
    HWY_DYNAMIC_DISPATCH(cpu::token_loss_rows)(logits, wanted, nll, entropy, argmax, first, last);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
