#include "rl/whitening.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/controller/memories.h"

namespace memslot {
namespace {

float length(std::span<const float> v) { return std::sqrt(dot(v.data(), v.data(), v.size())); }

std::vector<float> whitened(const Whitening& w, std::span<const float> x) {
  std::vector<float> out(w.reduced_dim());
  w.apply(x, out);
  return out;
}

float cosine(std::span<const float> a, std::span<const float> b) {
  return dot(a.data(), b.data(), a.size()) / (length(a) * length(b));
}

TEST(Dot, EqualsTheDoubleSumAtAwkwardLengths) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 33u, 96u, 576u, 577u}) {
    std::vector<float> a(n), b(n);
    double want = 0, size = 0;
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = normal(rng);
      b[i] = normal(rng);
      want += double{a[i]} * b[i];
      size += std::abs(double{a[i]} * b[i]);
    }
    EXPECT_NEAR(dot(a.data(), b.data(), n), want, 1e-6 * size + 1e-12) << n;
  }
}

TEST(Whitening, GivesUnitVectorsWithAtMostNinetySixDimensions) {
  std::mt19937 rng(2);
  const auto rows = keys_around(std::vector<float>(200, 1.0f), 500, 1.0f, rng);
  const Whitening w = Whitening::fit(rows, 200, 7);
  EXPECT_EQ(w.version(), 7u);
  EXPECT_EQ(w.fitted_rows(), 500u);
  EXPECT_EQ(w.reduced_dim(), kMaxReducedDim);
  EXPECT_NEAR(length(whitened(w, std::span(rows).first(200))), 1.0f, 1e-5f);
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
  // n just below and just above D takes either way to the eigenvectors; one row hardly matters.
  std::mt19937 rng(4);
  const auto rows = keys_around(std::vector<float>(70, 0.5f), 70, 1.0f, rng);
  const Whitening gram = Whitening::fit(std::span(rows).first(69 * 70), 70, 1);
  const Whitening full = Whitening::fit(rows, 70, 1);
  const auto a = std::span(rows).first(70), b = std::span(rows).subspan(70, 70);
  EXPECT_NEAR(cosine(whitened(gram, a), whitened(gram, b)),
              cosine(whitened(full, a), whitened(full, b)), 0.05f);
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
    std::vector<float> a(want.reduced_dim()), b(want.reduced_dim());
    const auto query = keys_around(centre_of(4), 1, 0.3f, rng);
    want.apply(query, a);
    got.apply(query, b);
    EXPECT_EQ(a, b) << bad;
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
  const auto key = whitened(w, std::span(keys).first(64));
  EXPECT_GT(dot(key.data(), whitened(w, like).data(), key.size()), 0.7f);
  EXPECT_LT(length(whitened(w, unlike)), 0.5f);
}

}  // namespace
}  // namespace memslot
