#pragma once
// The space in which keys and queries are compared. A few huge dimensions dominate raw slot inputs;
// statistics of the bank's own keys, or of a policy's training text, take them away.
//
//   m, v = mean and variance of the fitted rows (n, D), per dimension
//   v'_d = (n v_d + 16 median(v)) / (n + 16)         few rows: no dimension is trusted to be still
//   z(x) = (x - m) / sqrt(v')
//   S = covariance of z;  S' = (1 - rho) S + rho I,  rho = D / (n + D)    more keys, less of it
//   w(x) = normalise( (l'_j)^-1/2 * e_j . z(x), j = 1..W )
//   r(x) = normalise( w_1 .. w_R ),  R = min(96, W)
//
// with e_j, l'_j the eigenpairs of S', largest first, and W = D up to kMaxWhiteDim. Products of w
// say how near two texts are: what tells one passage from another of its kind lies in the many
// small directions as much as in the large ones. r is for searching very many keys, and for what is
// learned over pairs of them. Shrinking towards the variances themselves, not towards their mean,
// keeps huge dimensions from setting every scale (Schaefer and Strimmer 2005,
// doi:10.2202/1544-6115.1175).
//
// With fewer than kFewKeys rows what lies outside the directions counts in the norm too, beyond W
// ones by weight rho^-1/2, so that a query unlike any key is not blown up into one that is like a
// few.
//
// As tensors (docs/formats/policy.md) it travels with the policy that was trained in it.
//
// Threads: immutable after fit() or restore(); share freely.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "shared/tensor/tensor.h"

namespace memslot {

inline constexpr std::uint32_t kMaxReducedDim = 96;      // R
inline constexpr std::uint32_t kMaxWhiteDim = 1024;      // W
inline constexpr std::int64_t kMaxWhitenedDim = 131072;  // D
inline constexpr std::uint32_t kFewKeys = 64;
inline constexpr std::uint32_t kMaxFittedRows = 8192;

// A key or a query in the whitened space. Both empty: there is none.
struct Whitened {
  std::vector<float> white;    // (W) = w(x)
  std::vector<float> reduced;  // (R) = r(x)
  bool empty() const { return white.empty(); }
};

class Whitening {
 public:
  Whitening() = default;  // fits nothing: white_dim() is 0
  // `rows`: (n, dim) row-major, finite; above kMaxFittedRows an even sample of it. n may be 0 or 1.
  // `version` names these statistics; `represented` is how many rows they stand for (0: n).
  static Whitening fit(std::span<const float> rows, std::uint32_t dim, std::uint64_t version,
                       std::uint64_t represented = 0);

  std::uint32_t dim() const { return dim_; }              // D
  std::uint32_t white_dim() const { return white_dim_; }  // W
  std::uint32_t reduced_dim() const {                     // R
    return white_dim_ < kMaxReducedDim ? white_dim_ : kMaxReducedDim;
  }
  std::uint64_t fitted_rows() const { return fitted_rows_; }  // n, or `represented`
  std::uint64_t version() const { return version_; }

  // Adds "<prefix>mean" (D), "inverse_sd" (D), "projection" (W, D), "scale" (W) and "residual" (1).
  void store(const std::string& prefix, std::map<std::string, HostTensor>& to) const;
  // What store() wrote; fits nothing where no tensor has the prefix. The numbers are its own, bit
  // for bit. kCorruption: a tensor is missing, of another shape, or a number that fit() cannot
  // give.
  static Result<Whitening> restore(const std::map<std::string, HostTensor>& from,
                                   const std::string& prefix, std::uint64_t fitted_rows,
                                   std::uint64_t version);
  // XXH3-128 over all numbers, hex; "" if it fits nothing. Equal: the same w(x), bit for bit.
  std::string digest() const;

  // out (W) = w(x), x (D). All zero if x is the mean, or W is 0.
  // REQUIRES: x.size() == dim(), out.size() == white_dim().
  void apply(std::span<const float> x, std::span<float> out) const;
  // out (R) = r(x), white (W) = w(x).
  // REQUIRES: white.size() == white_dim(), out.size() == reduced_dim().
  void reduce(std::span<const float> white, std::span<float> out) const;
  Whitened whiten(std::span<const float> x) const;  // both of x (D)

 private:
  std::uint32_t dim_ = 0;
  std::uint32_t white_dim_ = 0;
  std::uint64_t fitted_rows_ = 0;
  std::uint64_t version_ = 0;
  float residual_weight_ = 0;      // squared; 0: the rest is dropped
  std::vector<float> mean_;        // (D)
  std::vector<float> inverse_sd_;  // (D): 1 / sqrt(v')
  std::vector<float> projection_;  // (W, D): e_j scaled by (l'_j)^-1/2
  std::vector<float> scale_;       // (W): (l'_j)^-1/2
};

// Sum of a[i] * b[i], with the widest vectors that this machine has.
float dot(const float* a, const float* b, std::size_t n);
// To length 1; what is all zero stays so.
void normalise(std::span<float> v);

}  // namespace memslot
