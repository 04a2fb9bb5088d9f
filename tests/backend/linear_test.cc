#include <cmath>

#include "tests/backend/device_rows.h"
#include "tests/support/reference_ops.h"

namespace memslot::testing_support {
namespace {

struct LinearCase {
  std::int64_t m, k, n;
};

class Linear : public testing::TestWithParam<LinearCase> {
 protected:
  std::unique_ptr<Backend> backend_ = open_backend({}).value();
};

struct Stored {
  std::vector<float> x, w, bias, y0;
};

Stored make_inputs(const LinearCase& c, DType dtype) {
  Stored out{normal_values(static_cast<std::size_t>(c.m * c.k), 1),
             normal_values(static_cast<std::size_t>(c.n * c.k), 2),
             normal_values(static_cast<std::size_t>(c.n), 3),
             normal_values(static_cast<std::size_t>(c.m * c.n), 4)};
  for (auto* values : {&out.x, &out.w}) {
    for (auto& v : *values) v = as_stored(v, dtype);
  }
  return out;
}

std::shared_ptr<const PackedWeight> pack(Backend& backend, const std::vector<float>& w,
                                         std::int64_t rows, std::int64_t cols, DType dtype,
                                         Transpose transpose = Transpose::kNo) {
  const HostTensor host{Shape{rows, cols}, w};
  return backend.pack(host.view(), dtype, transpose).value();
}

// A K-term dot product in f32 is off by at most about K * 2^-24 * sum |x w|; sums of normal values
// grow as sqrt(K), their absolute sum as K.
double dot_tolerance(std::int64_t k) {
  const auto terms = static_cast<double>(k + 2);
  return 4 * 0x1p-24 * terms * std::sqrt(terms) + 1e-6;
}

TEST_P(Linear, IsTheDoubleLoopWithBiasAndAccumulation) {
  const auto c = GetParam();
  for (const auto dtype : matrix_dtypes(*backend_)) {
    SCOPED_TRACE(dtype_name(dtype));
    const auto in = make_inputs(c, dtype);
    const auto w = pack(*backend_, in.w, c.n, c.k, dtype);
    const DeviceRows x(*backend_, c.m, c.k, in.x, dtype);
    const auto want = [&](bool bias, bool accumulate) {
      return reference::linear(
          doubles(in.x), doubles(in.w), bias ? doubles(in.bias) : reference::Values{},
          accumulate ? doubles(in.y0) : reference::Values{}, static_cast<std::size_t>(c.m),
          static_cast<std::size_t>(c.k), static_cast<std::size_t>(c.n));
    };
    for (const bool bias : {false, true}) {
      for (const bool accumulate : {false, true}) {
        const DeviceRows y(*backend_, c.m, c.n, in.y0);
        backend_->linear(x.matrix(), *w, y.matrix(), bias ? in.bias.data() : nullptr, accumulate);
        expect_near_all(y.floats(), want(bias, accumulate), dot_tolerance(c.k));
      }
    }
    const DeviceRows rounded(*backend_, c.m, c.n, DType::kBF16);
    backend_->linear(x.matrix(), *w, rounded.matrix(), nullptr, false);
    const auto exact = want(false, false);
    expect_near_all(rounded.floats(), exact,
                    dot_tolerance(c.k) + largest(exact) * rounding(DType::kBF16));
  }
}

TEST_P(Linear, TransposedPackingMultipliesByTheTranspose) {
  const auto c = GetParam();
  const auto in = make_inputs(c, DType::kF32);
  // w is [N, K]; packed transposed it maps N inputs to K outputs, as w^T packed plainly does.
  std::vector<float> turned(in.w.size());
  for (std::int64_t i = 0; i < c.n; ++i) {
    for (std::int64_t j = 0; j < c.k; ++j) {
      turned[static_cast<std::size_t>(j * c.n + i)] = in.w[static_cast<std::size_t>(i * c.k + j)];
    }
  }
  const auto a = pack(*backend_, in.w, c.n, c.k, DType::kF32, Transpose::kYes);
  const auto b = pack(*backend_, turned, c.k, c.n, DType::kF32);
  ASSERT_EQ(a->inputs(), c.n);
  ASSERT_EQ(a->outputs(), c.k);
  const DeviceRows x(*backend_, c.m, c.n, in.y0);
  const DeviceRows ya(*backend_, c.m, c.k), yb(*backend_, c.m, c.k);
  backend_->linear(x.matrix(), *a, ya.matrix(), nullptr, false);
  backend_->linear(x.matrix(), *b, yb.matrix(), nullptr, false);
  EXPECT_EQ(ya.floats(), yb.floats());
}

TEST_P(Linear, EmbedGivesBackTheRowsThatWerePacked) {
  const auto c = GetParam();
  for (const auto dtype : matrix_dtypes(*backend_)) {
    const auto in = make_inputs(c, dtype);
    const auto table = pack(*backend_, in.w, c.n, c.k, dtype);
    const std::vector<std::int32_t> ids = {static_cast<std::int32_t>(c.n - 1), 0,
                                           static_cast<std::int32_t>(c.n / 2)};
    const DeviceRows y(*backend_, 3, c.k);
    backend_->embed(*table, ids, y.matrix());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      for (std::int64_t k = 0; k < c.k; ++k) {
        ASSERT_EQ(y.at(static_cast<std::int64_t>(i), k),
                  in.w[static_cast<std::size_t>(ids[i] * c.k + k)]);
      }
    }
  }
}

TEST_P(Linear, ASliceOfOutputsIsThosePackedAlone) {
  const auto c = GetParam();
  for (const auto dtype : matrix_dtypes(*backend_)) {
    SCOPED_TRACE(dtype_name(dtype));
    const auto in = make_inputs(c, dtype);
    const auto w = pack(*backend_, in.w, c.n, c.k, dtype);
    const DeviceRows x(*backend_, c.m, c.k, in.x, dtype);
    for (const std::int64_t first : {std::int64_t{0}, c.n / 3, c.n / 3 / 64 * 64, c.n - 1}) {
      for (const std::int64_t count : {std::int64_t{1}, (c.n - first) / 2, c.n - first}) {
        if (count == 0) continue;
        const auto slice = backend_->slice_outputs(*w, first, count).value();
        ASSERT_EQ(slice->inputs(), c.k);
        ASSERT_EQ(slice->outputs(), count);
        const auto begin = in.w.begin() + first * c.k;
        const auto alone =
            pack(*backend_, {begin, begin + count * c.k}, count, c.k, dtype, Transpose::kNo);
        const DeviceRows got(*backend_, c.m, count), want(*backend_, c.m, count);
        backend_->linear(x.matrix(), *slice, got.matrix(), nullptr, false);
        backend_->linear(x.matrix(), *alone, want.matrix(), nullptr, false);
        EXPECT_EQ(got.floats(), want.floats()) << first << " + " << count;
      }
    }
  }
}

TEST(Slices, WholeBlocksShareTheMemoryOfTheMap) {
  const auto backend = open_backend({}).value();
  if (!backend->info().row_invariant) GTEST_SKIP() << "another layout on " << backend->info().isa;
  for (const auto dtype : matrix_dtypes(*backend)) {
    const auto w = pack(*backend, normal_values(256 * 64, 1), 256, 64, dtype);
    const auto slice = backend->slice_outputs(*w, 128, 64).value();
    EXPECT_EQ(slice->bytes(), 0u);
    const auto* start = static_cast<const std::byte*>(w->data());
    EXPECT_EQ(slice->data(), start + w->bytes() / 2);
  }
}

TEST(Shapes, ThatAreForgottenComeBackWithTheirBits) {
  const auto backend = open_backend({}).value();
  const auto w = pack(*backend, normal_values(96 * 64, 1), 96, 64, DType::kF32);
  const auto run = [&](std::int64_t m) {
    const DeviceRows x(*backend, m, 64, normal_values(static_cast<std::size_t>(m * 64), 2));
    const DeviceRows y(*backend, m, 96);
    backend->linear(x.matrix(), *w, y.matrix(), nullptr, false);
    return y.floats();
  };
  const auto first = run(3);
  for (std::int64_t m = 4; m < 300; ++m) run(m);  // more than are kept
  EXPECT_EQ(run(3), first);
  backend->trim();
  EXPECT_EQ(backend->kept_bytes(), 0u);
  EXPECT_EQ(run(3), first);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Linear,
                         testing::Values(LinearCase{1, 64, 192}, LinearCase{5, 37, 19},
                                         LinearCase{17, 1, 1}, LinearCase{2, 576, 16},
                                         LinearCase{33, 16, 130}, LinearCase{1, 3, 65}),
                         [](const auto& test) {
                           return std::to_string(test.param.m) + "x" +
                                  std::to_string(test.param.k) + "x" + std::to_string(test.param.n);
                         });

TEST(LinearTypes, InputsOfAnotherTypeAreConvertedToTheWeights) {
  const auto backend = open_backend({}).value();
  for (const auto dtype : matrix_dtypes(*backend)) {
    const auto other = dtype == DType::kF32 ? DType::kBF16 : DType::kF32;
    const auto x = normal_values(6 * 32, 1), w = normal_values(8 * 32, 2);
    const auto packed = pack(*backend, w, 8, 32, dtype);
    const DeviceRows mixed(*backend, 6, 32, x, other), out_mixed(*backend, 6, 8),
        out_same(*backend, 6, 8);
    const DeviceRows same(*backend, 6, 32, mixed.floats(), dtype);
    backend->linear(mixed.matrix(), *packed, out_mixed.matrix(), nullptr, false);
    backend->linear(same.matrix(), *packed, out_same.matrix(), nullptr, false);
    EXPECT_EQ(out_mixed.floats(), out_same.floats());
  }
}

TEST(Pack, Bf16WhereTheProcessorLacksItIsNotSupported) {
  const auto backend = open_backend({}).value();
  const HostTensor host{Shape{4, 8}, normal_values(32, 1)};
  const auto packed = backend->pack(host.view(), DType::kBF16, Transpose::kNo);
  ASSERT_EQ(packed.has_value(), backend->info().bf16);
  if (!packed.has_value()) {
    EXPECT_EQ(packed.error().code, ErrorCode::kNotSupported);
  }
}

}  // namespace
}  // namespace memslot::testing_support
