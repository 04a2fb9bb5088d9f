#include "rl/whitening.h"

#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <random>

#include "rl/bf16_product.h"
#include "shared/tensor/dtype.h"
#include "tests/controller/memories.h"

namespace memslot {
namespace {

float length(std::span<const float> v) { return std::sqrt(dot(v.data(), v.data(), v.size())); }

std::vector<float> whitened(const Whitening& w, std::span<const float> x) {
  return w.whiten(x).white;
}

float cosine(std::span<const float> a, std::span<const float> b) {
  return dot(a.data(), b.data(), a.size()) / (length(a) * length(b));
}

// Of two kinds of rows: in full and in bf16.
TEST(Dot, EqualsTheDoubleSumAtAwkwardLengths) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 31u, 32u, 33u, 64u, 95u, 96u, 576u, 577u}) {
    std::vector<float> a(n), b(n);
    std::vector<std::uint16_t> short_a(n);
    for (float& x : a) x = normal(rng);
    for (float& x : b) x = normal(rng);
    convert(a, short_a);
    double want = 0, size = 0, short_want = 0;
    for (std::size_t i = 0; i < n; ++i) {
      want += double{a[i]} * b[i];
      size += std::abs(double{a[i]} * b[i]);
      short_want += double{bf16_to_f32(short_a[i])} * b[i];
    }
    EXPECT_NEAR(dot(a.data(), b.data(), n), want, 1e-6 * size + 1e-12) << n;
    EXPECT_NEAR(Bf16Product(b)(short_a.data()), short_want, 1e-6 * size + 1e-12) << n;
  }
}

TEST(Whitening, GivesUnitVectorsOfAllDimensionsAndOfNinetySix) {
  std::mt19937 rng(2);
  const auto rows = keys_around(std::vector<float>(200, 1.0f), 500, 1.0f, rng);
  const Whitening w = Whitening::fit(rows, 200, 7);
  EXPECT_EQ(w.version(), 7u);
  EXPECT_EQ(w.fitted_rows(), 500u);
  EXPECT_EQ(w.white_dim(), 200u);
  EXPECT_EQ(w.reduced_dim(), kMaxReducedDim);
  const Whitened key = w.whiten(std::span(rows).first(200));
  EXPECT_NEAR(length(key.white), 1.0f, 1e-5f);
  EXPECT_NEAR(length(key.reduced), 1.0f, 1e-5f);
  EXPECT_NEAR(cosine(key.reduced, std::span(key.white).first(kMaxReducedDim)), 1.0f, 1e-5f);
}

TEST(Whitening, IsTheInverseOfTheShrunkCovariance) {
  // w(x) . w(y) is the cosine of x and y in the metric S'^-1, in all D dimensions, those that no
  // fitted row takes up included. S' is made here by its formula.
  constexpr std::uint32_t kWide = 24;
  std::mt19937 rng(9);
  for (const int n : {80, 16}) {
    const auto rows = keys_around(std::vector<float>(kWide, 0.5f), n, 1.0f, rng);
    const Whitening w = Whitening::fit(rows, kWide, 1);
    const auto x = keys_around(std::vector<float>(kWide, 0.5f), 1, 1.0f, rng);
    const auto y = keys_around(std::vector<float>(kWide, 0.5f), 1, 1.0f, rng);
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto matrix = [](const std::vector<float>& v) -> Matrix {
      return Eigen::Map<
                 const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
                 v.data(), static_cast<Eigen::Index>(v.size() / kWide), kWide)
          .cast<double>();
    };
    Matrix z = matrix(rows);
    const Eigen::RowVectorXd mean = z.colwise().mean();
    z.rowwise() -= mean;
    const Eigen::RowVectorXd variance = z.colwise().squaredNorm() / n;
    std::vector<double> sorted(variance.data(), variance.data() + kWide);
    std::sort(sorted.begin(), sorted.end());
    const Eigen::RowVectorXd sd =
        ((n * variance.array() + 16 * sorted[kWide / 2]) / (n + 16)).sqrt();
    z = z.array().rowwise() / sd.array();
    const double rho = double{kWide} / (n + double{kWide});
    const Matrix s = (1 - rho) * (z.transpose() * z) / n + rho * Matrix::Identity(kWide, kWide);
    const auto metric = [&](const std::vector<float>& a, const std::vector<float>& b) {
      const Eigen::RowVectorXd za = (matrix(a).row(0) - mean).array() / sd.array();
      const Eigen::RowVectorXd zb = (matrix(b).row(0) - mean).array() / sd.array();
      return za.dot(s.ldlt().solve(zb.transpose()).transpose());
    };
    const double want = metric(x, y) / std::sqrt(metric(x, x) * metric(y, y));
    const auto got = dot(whitened(w, x).data(), whitened(w, y).data(), kWide);
    EXPECT_NEAR(got, want, 1e-4) << n << " rows";
  }
}

TEST(Whitening, MakesTheDirectionsOfManyKeysEquallyImportant) {
  // One direction varies a hundred times as much as the others: after whitening, moving by one
  // standard deviation along either changes the vector alike.
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> rows;
  for (int i = 0; i < 4000; ++i) {
    for (int d = 0; d < 6; ++d) rows.push_back(5.0f + normal(rng) * (d == 0 ? 100.0f : 1.0f));
  }
  const Whitening w = Whitening::fit(rows, 6, 1);
  const auto moved = [&](int d, float by) {
    std::vector<float> x(6, 5.0f);
    x[1] += 1.0f;  // away from the mean
    x[static_cast<std::size_t>(d)] += by;
    return whitened(w, x);
  };
  const auto start = moved(1, 0.0f);
  EXPECT_NEAR(cosine(start, moved(0, 100.0f)), cosine(start, moved(2, 1.0f)), 0.05f);
  EXPECT_LT(cosine(start, moved(0, 100.0f)), 0.8f);
}

TEST(Whitening, GivesTheSameSpaceFromGramMatrixAndCovariance) {
  // A dimension beyond the limit takes the other way to the eigenvectors. Fitted rows lie within
  // what it finds, and one constant dimension hardly matters.
  std::mt19937 rng(4);
  constexpr std::size_t kWide = kMaxWhiteDim, kRows = 40;
  const auto rows = keys_around(std::vector<float>(kWide, 0.5f), kRows, 1.0f, rng);
  std::vector<float> wider;
  for (std::size_t i = 0; i < kRows; ++i) {
    wider.insert(wider.end(), rows.begin() + static_cast<std::ptrdiff_t>(i * kWide),
                 rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * kWide));
    wider.push_back(0.0f);
  }
  const Whitening full = Whitening::fit(rows, kWide, 1);
  const Whitening gram = Whitening::fit(wider, kWide + 1, 1);
  EXPECT_EQ(full.white_dim(), kWide);
  EXPECT_LT(gram.white_dim(), kRows);
  const auto product = [](const Whitening& w, std::span<const float> a, std::span<const float> b) {
    const auto wa = whitened(w, a), wb = whitened(w, b);
    return dot(wa.data(), wb.data(), wa.size());
  };
  for (std::size_t i = 1; i < 5; ++i) {
    EXPECT_NEAR(
        product(full, std::span(rows).first(kWide), std::span(rows).subspan(i * kWide, kWide)),
        product(gram, std::span(wider).first(kWide + 1),
                std::span(wider).subspan(i * (kWide + 1), kWide + 1)),
        1e-3f);
  }
}

TEST(Whitening, WorksWithNoneOneAndIdenticalKeys) {
  EXPECT_EQ(Whitening::fit({}, 4, 1).reduced_dim(), 0u);
  const std::vector<float> one = {1, 2, 3, 4};
  const Whitening single = Whitening::fit(one, 4, 1);
  EXPECT_NEAR(whitened(single, one)[0] * whitened(single, one)[0], 1.0f, 1e-5f);
  const std::vector<float> same = {1, 2, 3, 4, 1, 2, 3, 4};
  EXPECT_EQ(Whitening::fit(same, 4, 1).reduced_dim(), 0u);
  const std::vector<float> zeros(8, 0.0f);
  EXPECT_EQ(Whitening::fit(zeros, 4, 1).reduced_dim(), 0u);
}

TEST(Whitening, LeavesRowsOutThatWouldBlindIt) {
  std::mt19937 rng(7);
  std::vector<float> good;
  for (unsigned i = 0; i < 20; ++i) {
    const auto row = keys_around(centre_of(i), 1, 0.3f, rng);
    good.insert(good.end(), row.begin(), row.end());
  }
  const auto want = Whitening::fit(good, kDim, 1);
  for (const float bad : {3e38f, -3e38f, INFINITY, NAN}) {
    std::vector<float> rows = good;
    rows.insert(rows.begin() + 3 * kDim, kDim, bad);
    const auto got = Whitening::fit(rows, kDim, 1);
    ASSERT_EQ(got.reduced_dim(), want.reduced_dim()) << bad;
    const auto query = keys_around(centre_of(4), 1, 0.3f, rng);
    EXPECT_EQ(whitened(want, query), whitened(got, query)) << bad;
  }
}

TEST(Whitening, KeepsAnUnlikeQueryFarWhereKeysAreFew) {
  // Four keys of one memory span four of 64 dimensions. A query that shares nothing with them but
  // chance must not be blown up into a near one; a query like a key must be near it.
  std::mt19937 rng(5);
  const auto centre = centre_of(1, 64);
  const auto keys = keys_around(centre, 4, 0.5f, rng);
  const Whitening w = Whitening::fit(keys, 64, 1);
  const auto like = keys_around({keys.begin(), keys.begin() + 64}, 1, 0.1f, rng);
  const auto unlike = keys_around(centre_of(2, 64), 1, 0.5f, rng);
  const Whitened key = w.whiten(std::span(keys).first(64));
  const Whitened near = w.whiten(like), far = w.whiten(unlike);
  EXPECT_GT(dot(key.white.data(), near.white.data(), key.white.size()), 0.7f);
  EXPECT_LT(dot(key.white.data(), far.white.data(), key.white.size()), 0.35f);
}

}  // namespace
}  // namespace memslot
