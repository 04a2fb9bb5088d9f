#include "generator/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "generator/cpu/rope_store.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#include "generator/cpu/cpu_backend.h"
#include "generator/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace memslot::cpu::HWY_NAMESPACE {

// Half rotation of one head: (a, b) -> (a cos - b sin, b cos + a sin), a the first half.
HWY_INLINE void rotate(const float* angles, float* head, std::size_t half) {
  const DF d;
  for_vectors(half, [&](std::size_t i, std::size_t count) {
    const auto c = load_part(d, angles + i, count), s = load_part(d, angles + half + i, count);
    const auto a = load_part(d, head + i, count), b = load_part(d, head + half + i, count);
    store_part(d, hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), head + i, count);
    store_part(d, hn::Add(hn::Mul(b, c), hn::Mul(a, s)), head + half + i, count);
  });
}

template <class T>
HWY_INLINE void put(const float* from, void* cache, std::int64_t index, std::size_t n) {
  const DF d;
  T* to = static_cast<T*>(cache) + index * static_cast<std::int64_t>(n);
  for_vectors(n, [&](std::size_t i, std::size_t count) {
    store_part(d, load_part(d, from + i, count), to + i, count);
  });
}

void rope_store_row(float* row, const AttentionShape& shape, const float* angles, const KvView& kv,
                    std::int64_t position) {
  const auto d = static_cast<std::size_t>(shape.head_dim);
  if (angles != nullptr) {
    for (int h = 0; h < shape.heads + shape.kv_heads; ++h)
      rotate(angles, row + h * shape.head_dim, d / 2);
  }
  for (int g = 0; g < shape.kv_heads; ++g) {
    const float* k = row + (shape.heads + g) * shape.head_dim;
    const float* v = k + shape.kv_heads * shape.head_dim;
    const std::int64_t index = g * kv.capacity + position;
    if (kv.dtype == DType::kBF16) {
      put<std::uint16_t>(k, kv.keys, index, d);
      put<std::uint16_t>(v, kv.values, index, d);
    } else {
      put<float>(k, kv.keys, index, d);
      put<float>(v, kv.values, index, d);
    }
  }
}

}  // namespace memslot::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace memslot {
namespace cpu {
HWY_EXPORT(rope_store_row);
}  // namespace cpu

void CpuBackend::rope_store(Matrix qkv, const AttentionShape& shape, float theta,
                            std::span<const AttentionSpan> spans) {
  MEMSLOT_CHECK(qkv.dtype == DType::kF32 &&
                qkv.cols == (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  for (const auto& span : spans) {
    MEMSLOT_CHECK(span.row + span.count <= qkv.rows &&
                  span.position + span.count <= span.kv.capacity);
    if (theta > 0) rope_.prepare(theta, shape.head_dim, span.position + span.count);
    rows(span.count, 2 * qkv.cols, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t position = span.position + i;
        HWY_DYNAMIC_DISPATCH(cpu::rope_store_row)
        (qkv.f32() + (span.row + i) * qkv.stride, shape, theta > 0 ? rope_.row(position) : nullptr,
         span.kv, position);
      }
    });
  }
}

}  // namespace memslot
#endif  // HWY_ONCE
