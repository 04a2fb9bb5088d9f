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

constexpr std::int64_t kRows = 96;  // virtual rows of a block: its panels fit the L2 cache
constexpr std::int64_t kParts = 4;  // of a sequence's blocks; of no thread count, for the bits

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// A sequence's part of the tasks and of the memory for shares.
struct SpanShares {
  std::int64_t first_task = 0, parts = 0, key_stride = 0, offset = 0;
};

// How the work is cut: tasks of a span, a key/value head and a part of the query blocks.
struct GradientPlan {
  ConstMatrix qkv, dy;
  Matrix dqkv;
  std::span<const AttentionSpan> spans;
  std::int64_t d, heads, kv_heads, group, block;
  std::vector<SpanShares> cuts;
  std::int64_t tasks = 0, floats = 0;  // floats: of all shares
  float* shares = nullptr;

  GradientPlan(ConstMatrix in, const AttentionShape& shape, std::span<const AttentionSpan> parts,
               ConstMatrix gradient, Matrix out)
      : qkv(in),
        dy(gradient),
        dqkv(out),
        spans(parts),
        d(shape.head_dim),
        heads(shape.heads),
        kv_heads(shape.kv_heads),
        group(heads / kv_heads),
        block(std::clamp<std::int64_t>(kRows / group, 1, 64)) {
    for (const AttentionSpan& span : spans) {
      MEMSLOT_CHECK(span.position == 0 && span.row + span.count <= qkv.rows);
      const std::int64_t blocks = (span.count + block - 1) / block;
      // Off the powers of two, whose lines would fall into few sets of the caches.
      const std::int64_t key_stride = (span.count + 15) / 16 * 16 + 16;
      cuts.push_back({tasks, std::clamp<std::int64_t>(blocks, 1, kParts), key_stride, floats});
      tasks += kv_heads * cuts.back().parts;
      floats += kv_heads * cuts.back().parts * 2 * d * key_stride;
    }
  }

  // Where the gradients of the keys (0) or values (1) of a key/value head stand in a row.
  std::int64_t column(std::int64_t kv_head, std::int64_t which) const {
    return (heads + which * kv_heads + kv_head) * d;
  }

  GradientTask task(std::int64_t number) const {
    const auto after =
        std::upper_bound(cuts.begin(), cuts.end(), number,
                         [](std::int64_t n, const SpanShares& cut) { return n < cut.first_task; });
    const SpanShares& cut = *(after - 1);
    const AttentionSpan& span = spans[size(after - cuts.begin()) - 1];
    const std::int64_t local = number - cut.first_task, g = local / cut.parts;
    const std::int64_t query = g * group * d;
    const float* row = qkv.f32() + span.row * qkv.stride;
    GradientTask out;
    out.count = size(span.count), out.group = size(group), out.head_dim = size(d);
    out.block = size(block), out.part = size(local % cut.parts), out.parts = size(cut.parts);
    out.scale = 1.0f / std::sqrt(static_cast<float>(d));
    out.query = row + query, out.stride = size(qkv.stride);
    out.key = row + column(g, 0), out.value = row + column(g, 1);
    out.dy = static_cast<const std::byte*>(dy.data) +
             size(span.row * dy.stride + query) * dtype_size(dy.dtype);
    out.dy_stride = size(dy.stride), out.bf16 = dy.dtype == DType::kBF16;
    out.dquery = dqkv.f32() + span.row * dqkv.stride + query;
    out.dquery_stride = size(dqkv.stride), out.key_stride = size(cut.key_stride);
    out.dkey = shares + cut.offset + local * 2 * d * cut.key_stride;
    out.dvalue = out.dkey + d * cut.key_stride;
    return out;
  }

  // One for the keys and one for the values of each span and key/value head.
  std::int64_t sums() const { return 2 * kv_heads * std::ssize(spans); }
  GradientSum sum(std::int64_t number) const {
    const std::size_t at = size(number / (2 * kv_heads));
    const SpanShares& cut = cuts[at];
    const std::int64_t g = number % (2 * kv_heads) / 2, which = number % 2;
    GradientSum out;
    out.count = size(spans[at].count), out.head_dim = size(d), out.parts = size(cut.parts);
    out.key_stride = size(cut.key_stride), out.share_stride = size(2 * d * cut.key_stride);
    out.shares = shares + cut.offset + (g * cut.parts * 2 + which) * d * cut.key_stride;
    out.to = dqkv.f32() + spans[at].row * dqkv.stride + column(g, which);
    out.to_stride = size(dqkv.stride);
    return out;
  }
};

}  // namespace
}  // namespace cpu

void CpuBackend::attention_backward(ConstMatrix qkv, const AttentionShape& shape,
                                    std::span<const AttentionSpan> spans, ConstMatrix dy,
                                    Matrix dqkv) {
  MEMSLOT_CHECK(qkv.dtype == DType::kF32 && dqkv.dtype == DType::kF32);
  MEMSLOT_CHECK(dy.dtype == DType::kF32 || dy.dtype == DType::kBF16);
  MEMSLOT_CHECK(qkv.cols == (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  MEMSLOT_CHECK(dqkv.cols == qkv.cols && dy.cols == shape.heads * shape.head_dim);
  MEMSLOT_CHECK(dy.rows == qkv.rows && dqkv.rows == qkv.rows);
  cpu::GradientPlan plan(qkv, shape, spans, dy, dqkv);
  plan.shares = scratch(2, DType::kF32, 1, plan.floats).f32();
  cpu::parallel_tasks(info_.threads, plan.tasks, [&](std::int64_t number) {
    cpu::GradientTask task = plan.task(number);
    task.native_bf16 = info_.bf16;
    HWY_DYNAMIC_DISPATCH(cpu::attention_gradient)(task);
  });
  cpu::parallel_tasks(info_.threads, plan.sums(), [&](std::int64_t number) {
    HWY_DYNAMIC_DISPATCH(cpu::sum_shares)(plan.sum(number));
  });
}

}  // namespace memslot
#endif  // HWY_ONCE
