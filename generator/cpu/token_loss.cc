#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/token_loss.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

struct RowLoss {
  float log_sum;  // log sum exp(x - highest)
  float highest;
  float entropy;
  std::int32_t argmax;
};

float row_max(const float* x, std::size_t n) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  auto best = hn::Set(d, x[0]);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) best = hn::Max(best, load(d, x + i));
  float highest = max_lanes(d, best);
  for (; i < n; ++i) highest = std::max(highest, x[i]);
  return highest;
}

// With z = x - max: Z = sum e^z, entropy = log Z - sum z e^z / Z.
RowLoss row_loss(const float* x, std::size_t n, bool want_argmax) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
  RowLoss loss{0, row_max(x, n), 0, 0};
  const auto highest = hn::Set(d, loss.highest), lowest = hn::Set(d, -104.0f);
  VF sum0 = hn::Zero(d), sum1 = sum0, weighted0 = sum0, weighted1 = sum0;
  const auto step = [&](std::size_t i, VF& sum, VF& weighted) {
    const std::size_t count = n - i;
    const auto z = hn::Max(hn::Sub(load_part(d, x + i, count), highest), lowest);
    const auto e = hn::IfThenElseZero(hn::FirstN(d, count), hn::Exp(d, z));
    sum = hn::Add(sum, e);
    weighted = hn::MulAdd(z, e, weighted);
  };
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    step(i, sum0, weighted0);
    step(i + lanes, sum1, weighted1);
  }
  for (; i < n; i += lanes) step(i, sum0, weighted0);
  const float sum = sum_lanes(d, hn::Add(sum0, sum1));
  loss.log_sum = std::log(sum);
  loss.entropy = std::max(0.0f, loss.log_sum - sum_lanes(d, hn::Add(weighted0, weighted1)) / sum);
  if (want_argmax) {
    loss.argmax = static_cast<std::int32_t>(std::find(x, x + n, loss.highest) - x);
    if (loss.argmax == static_cast<std::int32_t>(n)) loss.argmax = 0;  // only NaN
  }
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
