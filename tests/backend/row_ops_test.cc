// Operations that work on each row by itself, at widths around a vector's, in f32 and bf16.
#include <cmath>

#include "tests/backend/device_rows.h"
#include "tests/support/reference_ops.h"

namespace memslot::testing_support {
namespace {

constexpr std::int64_t kRows = 3;

class RowOps : public testing::TestWithParam<std::int64_t> {
 protected:
  std::unique_ptr<Backend> backend_ = open_backend({}).value();
  std::int64_t cols_ = GetParam();
  reference::Size size_{kRows, static_cast<std::size_t>(cols_)};
  std::vector<float> x_ = normal_values(size_.rows * size_.cols, 1, 3.0f);
  std::vector<float> weight_ = normal_values(size_.cols, 2), bias_ = normal_values(size_.cols, 3);

  // n terms of sums in f32, then a few roundings; and that of the result's type.
  double tolerance(const std::vector<double>& want, DType dtype) const {
    const double relative = (8 + static_cast<double>(cols_)) * 0x1p-24 + rounding(dtype);
    return relative * largest(want) + 1e-7;
  }

  template <class Op>
  void check(const std::vector<double>& want, Op&& op) {
    for (const auto dtype : {DType::kF32, DType::kBF16}) {
      const DeviceRows y(*backend_, kRows, cols_, dtype);
      op(y.matrix());
      expect_near_all(y.floats(), want, tolerance(want, dtype));
    }
  }
};

TEST_P(RowOps, RmsNormIsTheDoubleLoop) {
  const DeviceRows x(*backend_, kRows, cols_, x_);
  check(reference::rms_norm(doubles(x_), doubles(weight_), 1e-5, size_),
        [&](Matrix y) { backend_->rms_norm(x.matrix(), weight_.data(), 1e-5f, y); });
}

TEST_P(RowOps, LayerNormIsTheDoubleLoop) {
  const DeviceRows x(*backend_, kRows, cols_, x_);
  check(
      reference::layer_norm(doubles(x_), doubles(weight_), doubles(bias_), 1e-5, size_),
      [&](Matrix y) { backend_->layer_norm(x.matrix(), weight_.data(), bias_.data(), 1e-5f, y); });
}

TEST_P(RowOps, SiluMulIsTheDoubleLoop) {
  const auto both = normal_values(2 * size_.rows * size_.cols, 4, 4.0f);
  const DeviceRows x(*backend_, kRows, 2 * cols_, both);
  check(reference::silu_mul(doubles(both), size_),
        [&](Matrix y) { backend_->silu_mul(x.matrix(), y); });
}

TEST_P(RowOps, GeluIsTheDoubleLoop) {
  const DeviceRows x(*backend_, kRows, cols_, x_);
  std::vector<double> want;
  for (const float v : x_) want.push_back(kernels::gelu_tanh(static_cast<double>(v)));
  check(want, [&](Matrix y) { backend_->gelu(x.matrix(), y); });
}

TEST_P(RowOps, AddScalesAndAdds) {
  const auto y0 = normal_values(x_.size(), 5);
  const DeviceRows x(*backend_, kRows, cols_, x_), y(*backend_, kRows, cols_, y0);
  backend_->add(x.matrix(), -0.25f, y.matrix());
  std::vector<double> want;
  for (std::size_t i = 0; i < x_.size(); ++i)
    want.push_back(static_cast<double>(y0[i]) - 0.25 * static_cast<double>(x_[i]));
  expect_near_all(y.floats(), want, 0x1p-23 * largest(want));
}

TEST_P(RowOps, CopyRoundsToNearestEvenAndWidensExactly) {
  const DeviceRows x(*backend_, kRows, cols_, x_);
  const DeviceRows half(*backend_, kRows, cols_, DType::kBF16), back(*backend_, kRows, cols_);
  backend_->copy(x.matrix(), half.matrix());
  backend_->copy(half.matrix(), back.matrix());
  for (std::size_t i = 0; i < x_.size(); ++i) {
    EXPECT_EQ(back.floats()[i], as_stored(x_[i], DType::kBF16));
  }
}

TEST_P(RowOps, TokenLossIsTheDoubleLoop) {
  const DeviceRows x(*backend_, kRows, cols_, x_);
  const std::vector<std::int32_t> targets = {0, -1, static_cast<std::int32_t>(cols_ - 1)};
  float nll[kRows], entropy[kRows];
  std::int32_t argmax[kRows];
  backend_->token_loss(x.matrix(), targets, nll, entropy, argmax);
  const auto values = doubles(x_);
  for (std::size_t r = 0; r < kRows; ++r) {
    const auto want =
        reference::token_loss(std::span(values).subspan(r * size_.cols, size_.cols), targets[r]);
    EXPECT_NEAR(nll[r], want.nll, 1e-5);
    EXPECT_NEAR(entropy[r], want.entropy, 1e-5);
    EXPECT_EQ(argmax[r], want.argmax);
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, RowOps, testing::Values(1, 2, 7, 15, 16, 17, 63, 64, 65, 130, 576),
                         [](const auto& test) { return std::to_string(test.param); });

TEST(RowOpsAtTheEdge, LargeActivationsStayFinite) {
  const auto backend = open_backend({}).value();
  const std::vector<float> extreme = {-1e30f, -200.0f, -90.0f, 90.0f, 200.0f, 1e30f};
  std::vector<float> both = extreme;
  both.insert(both.end(), 6, 1.0f);
  const DeviceRows x(*backend, 1, 6, extreme), gate_up(*backend, 1, 12, both), y(*backend, 1, 6);
  backend->silu_mul(gate_up.matrix(), y.matrix());
  EXPECT_NEAR(y.at(0, 1), 0.0f, 1e-30f);
  EXPECT_EQ(y.at(0, 5), 1e30f);
  for (const float v : y.floats()) EXPECT_TRUE(std::isfinite(v));
  backend->gelu(DeviceRows(*backend, 1, 4, {-50.0f, -9.0f, 9.0f, 50.0f}).matrix(),
                DeviceRows(*backend, 1, 4).matrix());
}

TEST(RowOpsAtTheEdge, NanSurvivesTheWayToBf16) {
  const auto backend = open_backend({}).value();
  const DeviceRows x(*backend, 1, 3, {std::nanf(""), INFINITY, -INFINITY}),
      y(*backend, 1, 3, DType::kBF16);
  backend->copy(x.matrix(), y.matrix());
  EXPECT_TRUE(std::isnan(y.at(0, 0)));
  EXPECT_EQ(y.at(0, 1), INFINITY);
  EXPECT_EQ(y.at(0, 2), -INFINITY);
}

TEST(TokenLoss, TiesTakeTheLowestIdAndLogitsOfMinusInfinityDoNotHarm) {
  const auto backend = open_backend({}).value();
  const DeviceRows x(*backend, 1, 4, {1.0f, 2.0f, 2.0f, -INFINITY});
  std::int32_t argmax = -1;
  float nll = 0, entropy = 0;
  const std::vector<std::int32_t> target = {2};
  backend->token_loss(x.matrix(), target, &nll, &entropy, &argmax);
  EXPECT_EQ(argmax, 1);
  EXPECT_NEAR(nll, std::log(2 + std::exp(-1.0)), 1e-6);
  EXPECT_TRUE(std::isfinite(entropy));
}

}  // namespace
}  // namespace memslot::testing_support
