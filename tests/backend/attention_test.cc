#include <cmath>

#include "tests/backend/kv_rows.h"
#include "tests/support/reference_ops.h"

namespace memslot::testing_support {
namespace {

struct AttentionParam {
  AttentionShape shape;
  std::int64_t rows;
  float theta;
};

class Attention : public testing::TestWithParam<AttentionParam> {
 protected:
  std::unique_ptr<Backend> backend_ = open_backend({}).value();
};

// Rotation, storing and attention of a whole sequence; bf16 keys, values and queries are rounded
// (2^-8 at most each), which moves scores by about 2^-8 |q||k| / sqrt(d) and with them the weights.
TEST_P(Attention, IsTheDoubleLoopOverRotatedRows) {
  const auto& p = GetParam();
  const reference::AttentionCase c{static_cast<std::size_t>(p.shape.heads),
                                   static_cast<std::size_t>(p.shape.kv_heads),
                                   static_cast<std::size_t>(p.shape.head_dim)};
  const auto values = normal_values(static_cast<std::size_t>(p.rows) * c.row_width(), 7);
  auto rotated = doubles(values);
  for (std::size_t r = 0; p.theta > 0 && r < static_cast<std::size_t>(p.rows); ++r) {
    for (std::size_t h = 0; h < c.heads + c.kv_heads; ++h) {
      reference::rotate(rotated.data() + r * c.row_width() + h * c.d, c.d,
                        static_cast<double>(p.theta), static_cast<double>(r));
    }
  }
  const auto want = reference::attention(rotated, c, static_cast<std::size_t>(p.rows));
  for (const auto dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(dtype_name(dtype));
    KvRows kv(*backend_, p.shape, p.rows + 5, dtype);
    const DeviceRows qkv(*backend_, p.rows, static_cast<std::int64_t>(c.row_width()), values);
    const DeviceRows y(*backend_, p.rows, p.shape.heads * p.shape.head_dim);
    const AttentionSpan span{0, p.rows, 0, kv.view()};
    backend_->rope_store(qkv.matrix(), p.shape, p.theta, {&span, 1});
    backend_->attention(qkv.matrix(), p.shape, {&span, 1}, y.matrix());
    expect_near_all(y.floats(), want, dtype == DType::kF32 ? 2e-5 : 0.06);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(AttentionParam{{9, 3, 64}, 1, 1e5f}, AttentionParam{{9, 3, 64}, 70, 1e5f},
                    AttentionParam{{4, 2, 16}, 65, 1e4f}, AttentionParam{{4, 4, 16}, 129, 0},
                    AttentionParam{{6, 1, 10}, 40, 1e4f}, AttentionParam{{2, 2, 2}, 3, 1e4f},
                    AttentionParam{{2, 1, 80}, 64, 1e4f}, AttentionParam{{1, 1, 128}, 200, 1e4f}),
    [](const auto& test) {
      const auto& p = test.param;
      return std::to_string(p.shape.heads) + "x" + std::to_string(p.shape.kv_heads) + "x" +
             std::to_string(p.shape.head_dim) + "rows" + std::to_string(p.rows);
    });

TEST(AttentionScores, LargeOnesDoNotOverflow) {
  const auto backend = open_backend({}).value();
  const AttentionShape shape{1, 1, 4};
  KvRows kv(*backend, shape, 8, DType::kF32);
  auto values = normal_values(5 * 12, 3, 1e4f);  // scores of about 1e8
  const DeviceRows qkv(*backend, 5, 12, values), y(*backend, 5, 4);
  const AttentionSpan span{0, 5, 0, kv.view()};
  backend->rope_store(qkv.matrix(), shape, 0, {&span, 1});
  backend->attention(qkv.matrix(), shape, {&span, 1}, y.matrix());
  for (const float v : y.floats()) EXPECT_TRUE(std::isfinite(v));
}

}  // namespace
}  // namespace memslot::testing_support
