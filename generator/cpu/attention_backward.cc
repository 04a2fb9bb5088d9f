#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/attention_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "generator/cpu/attention_gradient-inl.h"

#if HWY_ONCE
#include "generator/cpu/cpu_backend.h"

namespace memslot {
namespace cpu {
HWY_EXPORT(attention_gradient);
HWY_EXPORT(sum_shares);

namespace {

constexpr std::int64_t kParts = 4;  // of a sequence's query blocks; fixed, so that bits are

// A sequence's share of the tasks and of the memory for shares.
struct SpanShares {
  std::int64_t first_task = 0, parts = 0, key_stride = 0, offset = 0;
};

// A stride off the powers of two, whose lines would fall into few sets of the caches.
std::int64_t padded_keys(std::int64_t count) { return (count + 15) / 16 * 16 + 16; }

}  // namespace
}  // namespace cpu

void CpuBackend::attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                                    std::span<const AttentionSpan> spans, ConstMatrix dy,
                                    Matrix dqkv) {
  const std::int64_t d = shape.head_dim, heads = shape.heads, groups = shape.kv_heads;
  const std::int64_t group = heads / groups;
  MEMSLOT_CHECK(qkv.dtype == DType::kF32 && dqkv.dtype == DType::kF32);
  MEMSLOT_CHECK(qkv.cols == (heads + 2 * groups) * d && dqkv.cols == qkv.cols &&
                dy.cols == heads * d && dy.rows == qkv.rows);
  const std::int64_t block =
      std::clamp<std::int64_t>(96 / group, 1, 64);  // panels fit the L2 cache
  std::vector<cpu::SpanShares> cuts;
  std::int64_t tasks = 0, floats = 0;
  for (const AttentionSpan& span : spans) {
    MEMSLOT_CHECK(span.position == 0 && span.row + span.count <= qkv.rows);
    const std::int64_t parts =
        std::clamp<std::int64_t>((span.count + block - 1) / block, 1, cpu::kParts);
    cuts.push_back({tasks, parts, cpu::padded_keys(span.count), floats});
    tasks += groups * parts;
    floats += groups * parts * 2 * d * cuts.back().key_stride;
  }
  float* shares = scratch(2, DType::kF32, 1, floats).f32();
  const auto find = [&](std::int64_t task) {
    const auto after =
        std::upper_bound(cuts.begin(), cuts.end(), task,
                         [](std::int64_t t, const auto& cut) { return t < cut.first_task; });
    return static_cast<std::size_t>(after - cuts.begin()) - 1;
  };
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  cpu::parallel_tasks(info_.threads, tasks, [&](std::int64_t number) {
    const std::size_t which = find(number);
    const auto& cut = cuts[which];
    const AttentionSpan& span = spans[which];
    const std::int64_t local = number - cut.first_task, g = local / cut.parts;
    const float* row = qkv.f32() + span.row * qkv.stride;
    const auto dy_offset = size(span.row * dy.stride + g * group * d) * dtype_size(dy.dtype);
    cpu::GradientTask task;
    task.count = size(span.count), task.group = size(group), task.head_dim = size(d);
    task.block = size(block), task.part = size(local % cut.parts), task.parts = size(cut.parts);
    task.scale = 1.0f / std::sqrt(static_cast<float>(d));
    task.query = row + g * group * d, task.stride = size(qkv.stride);
    task.key = row + (heads + g) * d, task.value = task.key + groups * d;
    task.dy = static_cast<const std::byte*>(dy.data) + dy_offset;
    task.dy_stride = size(dy.stride);
    task.bf16 = dy.dtype == DType::kBF16, task.native_bf16 = info_.bf16;
    task.dquery = dqkv.f32() + span.row * dqkv.stride + g * group * d;
    task.dquery_stride = size(dqkv.stride), task.key_stride = size(cut.key_stride);
    task.dkey = shares + cut.offset + local * 2 * d * cut.key_stride;
    task.dvalue = task.dkey + d * cut.key_stride;
    HWY_DYNAMIC_DISPATCH(cpu::attention_gradient)(task);
  });
  cpu::parallel_tasks(info_.threads, 2 * groups * std::ssize(spans), [&](std::int64_t number) {
    const auto which = size(number / (2 * groups));
    const auto& cut = cuts[which];
    const AttentionSpan& span = spans[which];
    const std::int64_t g = number % (2 * groups) / 2, value = number % 2;
    cpu::GradientSum sum;
    sum.count = size(span.count), sum.head_dim = size(d), sum.parts = size(cut.parts);
    sum.key_stride = size(cut.key_stride), sum.share_stride = size(2 * d * cut.key_stride);
    sum.shares = shares + cut.offset + (g * cut.parts * 2 + value) * d * cut.key_stride;
    sum.to = dqkv.f32() + span.row * dqkv.stride + (heads + value * groups + g) * d;
    sum.to_stride = size(dqkv.stride);
    HWY_DYNAMIC_DISPATCH(cpu::sum_shares)(sum);
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
