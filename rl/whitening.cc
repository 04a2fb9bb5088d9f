#include "rl/whitening.h"

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>

#include "shared/base/digest.h"
#include "shared/base/error.h"
#include "shared/base/lanes.h"
#include "shared/base/target_clones.h"
#include "shared/memory/record.h"

namespace memslot {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXf;

constexpr float kVarianceRows = 16;  // rows that the median variance counts for

// Largest eigenpairs of the rows' covariance; directions are rows of `vectors`.
struct Spectrum {
  Vector values;
  Matrix vectors;
};

// Without rows that would make the sums over all of them something else than numbers.
std::vector<float> usable_rows(std::span<const float> rows, std::uint32_t dim) {
  std::vector<float> out;
  out.reserve(rows.size());
  for (std::size_t at = 0; at < rows.size(); at += dim) {
    const auto row = rows.subspan(at, dim);
    const bool usable =
        std::ranges::all_of(row, [](float v) { return std::abs(v) <= kMaxKeyValue; });
    if (usable) out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

Matrix sampled_rows(std::span<const float> rows, std::uint32_t dim) {
  const std::size_t n = rows.size() / dim;
  const std::size_t kept = std::min<std::size_t>(n, kMaxFittedRows);
  Matrix out(static_cast<Eigen::Index>(kept), static_cast<Eigen::Index>(dim));
  for (std::size_t i = 0; i < kept; ++i) {
    const std::size_t from = i * n / kept;
    std::copy_n(rows.data() + from * dim, dim, out.data() + i * dim);
  }
  return out;
}

// From the (D, D) covariance: all directions, those in which no row differs included (a query may).
// Where that is too large and rows are fewer, from their (n, n) Gram matrix: the same non-zero
// eigenvalues, and none of the others.
Spectrum spectrum_of(const Matrix& centred, std::uint32_t wanted) {
  const Eigen::Index n = centred.rows();
  const Eigen::Index dim = centred.cols();
  const float scale = 1.0f / static_cast<float>(n);
  const bool gram = n < dim && dim > static_cast<Eigen::Index>(kMaxWhiteDim);
  const Eigen::Index size = gram ? n : dim;
  Eigen::MatrixXf square = Eigen::MatrixXf::Zero(size, size);
  if (gram) {
    square.selfadjointView<Eigen::Lower>().rankUpdate(centred, scale);
  } else {
    square.selfadjointView<Eigen::Lower>().rankUpdate(centred.transpose(), scale);
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXf> solver(square);
  MEMSLOT_CHECK(solver.info() == Eigen::Success);

  // Ascending order in the solver. What is nothing but rounding gives no direction in the Gram
  // matrix.
  const Vector& all = solver.eigenvalues();
  const float least =
      gram ? 1e-6f * std::max(all[size - 1], 0.0f) : -std::numeric_limits<float>::infinity();
  Eigen::Index count = 0;
  while (count < std::min<Eigen::Index>(wanted, size) && all[size - 1 - count] > least) ++count;

  Spectrum out{Vector(count), Matrix(count, dim)};
  for (Eigen::Index j = 0; j < count; ++j) {
    const auto column = solver.eigenvectors().col(size - 1 - j);
    out.values[j] = std::max(all[size - 1 - j], 0.0f);
    if (gram) {
      out.vectors.row(j) = (centred.transpose() * column).transpose().normalized();
    } else {
      out.vectors.row(j) = column.transpose();
    }
  }
  return out;
}

// z of whitening.h in place; what it takes to do the same to a query goes into `mean`,
// `inverse_sd`.
void standardise(Matrix& rows, std::vector<float>& mean, std::vector<float>& inverse_sd) {
  const float n = static_cast<float>(rows.rows());
  const Eigen::RowVectorXf centre = rows.colwise().mean();
  rows.rowwise() -= centre;
  const Eigen::RowVectorXf variance = rows.colwise().squaredNorm() / n;
  std::vector<float> sorted(variance.data(), variance.data() + variance.size());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  const float prior = *middle;
  for (Eigen::Index d = 0; d < rows.cols(); ++d) {
    const auto i = static_cast<std::size_t>(d);
    const float shrunk = (n * variance[d] + kVarianceRows * prior) / (n + kVarianceRows);
    mean[i] = centre[d];
    inverse_sd[i] = shrunk > 0 ? 1.0f / std::sqrt(shrunk) : 0.0f;
    rows.col(d) *= inverse_sd[i];
  }
}

HostTensor tensor_of(const std::vector<float>& values, Shape shape) { return {shape, values}; }

// Of `shape`, with numbers from `least` on that are finite.
Result<std::vector<float>> values_of(const std::map<std::string, HostTensor>& from,
                                     const std::string& name, Shape shape, float least) {
  const auto found = from.find(name);
  if (found == from.end()) return corrupt("whitening tensor", name, "none");
  if (found->second.shape != shape) {
    return corrupt("whitening tensor " + name, shape.text(), found->second.shape.text());
  }
  const auto usable = [&](float v) { return std::isfinite(v) && v >= least; };
  if (!std::ranges::all_of(found->second.values, usable)) {
    return corrupt("whitening tensor " + name, "finite numbers of its range", "others");
  }
  return found->second.values;
}

}  // namespace

// Four vectors of partial sums, which do not wait for each other.
MEMSLOT_TARGET_CLONES("avx512f", "avx2", "default")
float dot(const float* a, const float* b, std::size_t n) {
  Lanes sums[4] = {}, x, y;
  const auto add = [&](std::size_t at, Lanes & sum) __attribute__((always_inline)) {
    load_lanes(a + at, x);
    load_lanes(b + at, y);
    sum += x * y;
  };
  std::size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (std::size_t k = 0; k < 4; ++k) add(i + k * kLanes, sums[k]);
  }
  for (; i + kLanes <= n; i += kLanes) add(i, sums[0]);
  float rest = 0;
  for (; i < n; ++i) rest += a[i] * b[i];
  return rest + sum_of((sums[0] + sums[2]) + (sums[1] + sums[3]));
}

void normalise(std::span<float> v) {
  const float norm2 = dot(v.data(), v.data(), v.size());
  const float inverse = norm2 > 0 ? 1.0f / std::sqrt(norm2) : 0.0f;
  for (float& x : v) x *= inverse;
}

Whitening Whitening::fit(std::span<const float> rows, std::uint32_t dim, std::uint64_t version,
                         std::uint64_t represented) {
  MEMSLOT_CHECK(dim > 0 && rows.size() % dim == 0);
  Whitening out;
  out.dim_ = dim;
  out.version_ = version;
  out.fitted_rows_ = represented > 0 ? represented : rows.size() / dim;
  out.mean_.assign(dim, 0.0f);
  out.inverse_sd_.assign(dim, 1.0f);
  const std::vector<float> usable = usable_rows(rows, dim);
  if (usable.empty()) return out;

  Matrix z = sampled_rows(usable, dim);
  const float n = static_cast<float>(z.rows());
  // One row has no spread: compare about the origin instead of dropping it altogether.
  if (z.rows() > 1) {
    standardise(z, out.mean_, out.inverse_sd_);
  } else if (z.norm() > 0) {
    z *= std::sqrt(static_cast<float>(dim)) / z.norm();
  }
  if (!(z.squaredNorm() > 0)) return out;

  const Spectrum spectrum = spectrum_of(z, kMaxWhiteDim);
  const float rho = static_cast<float>(dim) / (n + static_cast<float>(dim));
  out.white_dim_ = static_cast<std::uint32_t>(spectrum.values.size());
  out.projection_.resize(std::size_t{out.white_dim_} * dim);
  out.scale_.resize(out.white_dim_);
  for (std::uint32_t j = 0; j < out.white_dim_; ++j) {
    out.scale_[j] = 1.0f / std::sqrt((1 - rho) * spectrum.values[j] + rho);
    for (std::uint32_t d = 0; d < dim; ++d) {
      out.projection_[std::size_t{j} * dim + d] = spectrum.vectors(j, d) * out.scale_[j];
    }
  }
  if (z.rows() < static_cast<Eigen::Index>(kFewKeys)) out.residual_weight_ = 1.0f / rho;
  return out;
}

void Whitening::store(const std::string& prefix, std::map<std::string, HostTensor>& to) const {
  if (dim_ == 0) return;
  const std::int64_t d = dim_, r = white_dim_;
  to[prefix + "mean"] = tensor_of(mean_, {d});
  to[prefix + "inverse_sd"] = tensor_of(inverse_sd_, {d});
  to[prefix + "projection"] = tensor_of(projection_, {r, d});
  to[prefix + "scale"] = tensor_of(scale_, {r});
  to[prefix + "residual"] = tensor_of({residual_weight_}, {1});
}

Result<Whitening> Whitening::restore(const std::map<std::string, HostTensor>& from,
                                     const std::string& prefix, std::uint64_t fitted_rows,
                                     std::uint64_t version) {
  Whitening out;
  const auto any = from.lower_bound(prefix);
  if (any == from.end() || !any->first.starts_with(prefix)) return out;
  const auto mean = from.find(prefix + "mean"), scale = from.find(prefix + "scale");
  if (mean == from.end() || scale == from.end()) {
    return corrupt("whitening tensors", prefix + "mean and " + prefix + "scale", "not both");
  }
  const Shape d = mean->second.shape, r = scale->second.shape;
  if (d.rank() != 1 || r.rank() != 1 || d[0] < 1 || d[0] > kMaxWhitenedDim || r[0] > kMaxWhiteDim) {
    return corrupt("whitening sizes", "[1 to 131072] and [0 to 1024]",
                   d.text() + " and " + r.text());
  }
  constexpr float kAny = std::numeric_limits<float>::lowest();
  constexpr float kPositive = std::numeric_limits<float>::min();
  out.dim_ = static_cast<std::uint32_t>(d[0]);
  out.white_dim_ = static_cast<std::uint32_t>(r[0]);
  out.fitted_rows_ = fitted_rows;
  out.version_ = version;
  MEMSLOT_TRY(out.mean_, values_of(from, prefix + "mean", d, kAny));
  MEMSLOT_TRY(out.inverse_sd_, values_of(from, prefix + "inverse_sd", d, 0));
  MEMSLOT_TRY(out.projection_, values_of(from, prefix + "projection", {r[0], d[0]}, kAny));
  MEMSLOT_TRY(out.scale_, values_of(from, prefix + "scale", r, kPositive));
  MEMSLOT_TRY(const auto residual, values_of(from, prefix + "residual", {1}, 0));
  out.residual_weight_ = residual[0];
  return out;
}

std::string Whitening::digest() const {
  if (dim_ == 0) return "";
  std::vector<float> all = mean_;
  for (const auto* part : {&inverse_sd_, &projection_, &scale_}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  all.push_back(residual_weight_);
  return xxh128(std::as_bytes(std::span(all))).hex();
}

void Whitening::apply(std::span<const float> x, std::span<float> out) const {
  MEMSLOT_CHECK(x.size() == dim_ && out.size() == white_dim_);
  if (white_dim_ == 0) return;
  thread_local std::vector<float> centred;
  centred.resize(dim_);
  for (std::uint32_t d = 0; d < dim_; ++d) centred[d] = (x[d] - mean_[d]) * inverse_sd_[d];

  float norm2 = 0;
  float inside = 0;  // squared length within the W directions, before scaling
  for (std::uint32_t j = 0; j < white_dim_; ++j) {
    out[j] = dot(projection_.data() + std::size_t{j} * dim_, centred.data(), dim_);
    norm2 += out[j] * out[j];
    const float plain = out[j] / scale_[j];
    inside += plain * plain;
  }
  if (residual_weight_ > 0) {
    const float rest = dot(centred.data(), centred.data(), dim_) - inside;
    norm2 += std::max(rest, 0.0f) * residual_weight_;
  }
  const float inverse = norm2 > 0 ? 1.0f / std::sqrt(norm2) : 0.0f;
  for (std::uint32_t j = 0; j < white_dim_; ++j) out[j] *= inverse;
}

void Whitening::reduce(std::span<const float> white, std::span<float> out) const {
  MEMSLOT_CHECK(white.size() == white_dim_ && out.size() == reduced_dim());
  std::copy_n(white.begin(), out.size(), out.begin());
  if (residual_weight_ == 0 && white_dim_ > reduced_dim()) normalise(out);
}

Whitened Whitening::whiten(std::span<const float> x) const {
  Whitened out{std::vector<float>(white_dim_), std::vector<float>(reduced_dim())};
  apply(x, out.white);
  reduce(out.white, out.reduced);
  return out;
}

}  // namespace memslot
