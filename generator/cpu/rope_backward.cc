#include "generator/cpu/cpu_backend.h"

namespace memslot {
namespace {

// The transpose of the rotation is the rotation by the negative angle.
void rotate_back(float* row, const float* cosine, const float* sine, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = row[i], b = row[i + half];
    row[i] = a * cosine[i] + b * sine[i];
    row[i + half] = b * cosine[i] - a * sine[i];
  }
}

}  // namespace

void CpuBackend::rope_backward(Matrix dqkv, const AttentionShape& shape, float theta,
                               std::span<const AttentionSpan> spans) {
  MEMSLOT_CHECK(dqkv.dtype == DType::kF32);
  MEMSLOT_CHECK(dqkv.cols ==
                static_cast<std::int64_t>(shape.heads + 2 * shape.kv_heads) * shape.head_dim);
  if (theta == 0) return;
  const std::int64_t half = shape.head_dim / 2;
  const int rotated = shape.heads + shape.kv_heads;
  for (const AttentionSpan& span : spans) {
    MEMSLOT_CHECK(span.row + span.count <= dqkv.rows);
    rope_.prepare(theta, shape.head_dim, span.position + span.count);
    rows(span.count, 4 * rotated * half, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        const float* angles = rope_.row(span.position + r);
        float* row = dqkv.f32() + (span.row + r) * dqkv.stride;
        for (int h = 0; h < rotated; ++h) {
          rotate_back(row + h * shape.head_dim, angles, angles + half, half);
        }
      }
    });
  }
}

}  // namespace memslot
