// Backward operations against references in double, at awkward sizes; and the references themselves
// against finite differences, so that a shared mistake in a formula shows.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "generator/backend/open_backend.h"
#include "generator/kernels/activations.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

using Doubles = std::vector<double>;

struct Rows {
  std::int64_t rows = 0, cols = 0;
  std::vector<float> values;
  Rows(std::int64_t r, std::int64_t c, std::uint64_t stream, double scale = 1)
      : rows(r), cols(c), values(static_cast<std::size_t>(r * c)) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(scale * (2 * uniform01(11, stream, i) - 1));
    }
  }
  Matrix matrix() { return {values.data(), DType::kF32, rows, cols, cols}; }
  Doubles doubles() const { return {values.begin(), values.end()}; }
};

void expect_near(const std::vector<float>& got, const Doubles& want, double tolerance,
                 const char* what) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got[i]} - want[i]) / (1 + std::abs(want[i]));
    if (!(error <= worst)) worst = error, at = i;
  }
  EXPECT_LE(worst, tolerance) << what << " at " << at << ": got " << got[at] << ", want "
                              << want[at];
}

// d f / d x by central differences, f = sum(dy * forward(x)).
Doubles numeric_gradient(const Doubles& x, const std::function<Doubles(const Doubles&)>& forward,
                         const Doubles& dy) {
  const auto dot = [&](const Doubles& at) {
    const Doubles y = forward(at);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  Doubles out(x.size()), moved = x;
  constexpr double kStep = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) {
    moved[i] = x[i] + kStep;
    const double up = dot(moved);
    moved[i] = x[i] - kStep;
    out[i] = (up - dot(moved)) / (2 * kStep);
    moved[i] = x[i];
  }
  return out;
}

class Backward : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = open_backend(BackendOptions{"cpu", 2}).value();
};

Doubles norm(const Doubles& x, std::int64_t rows, const std::vector<float>& weight, double eps,
             bool centre) {
  const auto n = static_cast<std::size_t>(std::ssize(x) / rows);
  Doubles y(x.size());
  for (std::size_t r = 0; r < x.size(); r += n) {
    double mean = 0, squares = 0;
    if (centre) {
      for (std::size_t i = 0; i < n; ++i) mean += x[r + i] / static_cast<double>(n);
    }
    for (std::size_t i = 0; i < n; ++i) squares += (x[r + i] - mean) * (x[r + i] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
    for (std::size_t i = 0; i < n; ++i) y[r + i] = (x[r + i] - mean) * scale * double{weight[i]};
  }
  return y;
}

TEST_F(Backward, NormsAtAwkwardWidths) {
  for (const std::int64_t n : {1, 3, 17, 64, 67}) {
    Rows x(5, n, 1), dy(5, n, 2), weight(1, n, 3);
    for (const bool centre : {false, true}) {
      if (centre && n == 1) continue;  // a layer norm of one value is constant
      const Doubles want = numeric_gradient(
          x.doubles(), [&](const Doubles& at) { return norm(at, 5, weight.values, 1e-3, centre); },
          dy.doubles());
      Rows dx(5, n, 4);
      const Doubles before = dx.doubles();
      for (const bool accumulate : {false, true}) {
        Rows out = dx;
        if (centre) {
          backend_->layer_norm_backward(x.matrix(), weight.values.data(), 1e-3f, dy.matrix(),
                                        out.matrix(), accumulate);
        } else {
          backend_->rms_norm_backward(x.matrix(), weight.values.data(), 1e-3f, dy.matrix(),
                                      out.matrix(), accumulate);
        }
        Doubles sum = want;
        for (std::size_t i = 0; accumulate && i < sum.size(); ++i) sum[i] += before[i];
        expect_near(out.values, sum, 2e-5, centre ? "layer_norm" : "rms_norm");
      }
    }
  }
}

TEST_F(Backward, ActivationsAtAwkwardWidths) {
  for (const std::int64_t f : {1, 5, 16, 33}) {
    Rows x(3, 2 * f, 1, 6), dy(3, f, 2);
    const auto silu_mul = [&](const Doubles& at) {
      Doubles y(static_cast<std::size_t>(3 * f));
      for (std::int64_t r = 0; r < 3; ++r) {
        for (std::int64_t i = 0; i < f; ++i) {
          const auto g = static_cast<std::size_t>(r * 2 * f + i),
                     u = static_cast<std::size_t>(r * 2 * f + f + i);
          y[static_cast<std::size_t>(r * f + i)] = kernels::silu(at[g]) * at[u];
        }
      }
      return y;
    };
    Rows dx(3, 2 * f, 3);
    backend_->silu_mul_backward(x.matrix(), dy.matrix(), dx.matrix());
    expect_near(dx.values, numeric_gradient(x.doubles(), silu_mul, dy.doubles()), 1e-5, "silu_mul");

    const auto gelu = [](const Doubles& at) {
      Doubles y;
      for (const double v : at) y.push_back(kernels::gelu_tanh(v));
      return y;
    };
    Rows one(3, f, 4, 6), done(3, f, 5);
    backend_->gelu_backward(one.matrix(), dy.matrix(), done.matrix());
    expect_near(done.values, numeric_gradient(one.doubles(), gelu, dy.doubles()), 1e-5, "gelu");
  }
}

TEST_F(Backward, ActivationsFarFromZeroStayFinite) {
  Rows x(1, 8, 1), dy(1, 4, 2), dx(1, 8, 3);
  x.values = {-200, 200, -90, 90, 1, 1, 1, 1};
  backend_->silu_mul_backward(x.matrix(), dy.matrix(), dx.matrix());
  for (const float v : dx.values) EXPECT_TRUE(std::isfinite(v));
  EXPECT_NEAR(dx.values[1], dy.values[1], 1e-6);  // silu'(200) = 1
  EXPECT_NEAR(dx.values[0], 0, 1e-6);
}

TEST_F(Backward, ActivationsGiveBf16WhereAsked) {
  Rows x(3, 34, 1), dy(3, 17, 2), want(3, 34, 3);
  backend_->silu_mul_backward(x.matrix(), dy.matrix(), want.matrix());
  std::vector<std::uint16_t> bits(want.values.size());
  backend_->silu_mul_backward(x.matrix(), dy.matrix(), {bits.data(), DType::kBF16, 3, 34, 34});
  for (std::size_t i = 0; i < bits.size(); ++i)
    EXPECT_EQ(bits[i], f32_to_bf16(want.values[i])) << i;
}

// The rows of a softmax that meets its columns in blocks of `width`, and what is left of the
// exponentials when each block's are brought to the last maximum.
struct BlockSoftmax {
  std::vector<SoftmaxRow> rows;
  std::vector<float> exps;  // (M, N)
};

BlockSoftmax block_softmax(Backend& backend, const Rows& logits,
                           std::span<const std::int32_t> targets, std::int64_t width, DType dtype) {
  const auto m = static_cast<std::size_t>(logits.rows);
  BlockSoftmax out{std::vector<SoftmaxRow>(m), {}};
  out.exps.assign(logits.values.size(), 0.0f);
  for (std::int64_t first = 0; first < logits.cols; first += width) {
    const std::int64_t n = std::min(width, logits.cols - first);
    std::vector<std::uint16_t> bits(m * static_cast<std::size_t>(n), 0xffff);
    std::vector<float> values(bits.size(), std::nanf(""));
    void* to = dtype == DType::kF32 ? static_cast<void*>(values.data()) : bits.data();
    const ConstMatrix block{logits.values.data() + first, DType::kF32, logits.rows, n, logits.cols};
    backend.softmax_block(block, first, targets, out.rows, {to, dtype, logits.rows, n, n});
    for (std::size_t r = 0; r < m; ++r) {
      float* row = out.exps.data() + r * static_cast<std::size_t>(logits.cols);
      for (std::int64_t i = 0; i < first; ++i) row[i] *= out.rows[r].rescale;
      for (std::int64_t i = 0; i < n; ++i) {
        const std::size_t at = r * static_cast<std::size_t>(n) + static_cast<std::size_t>(i);
        row[first + i] = dtype == DType::kF32 ? values[at] : bf16_to_f32(bits[at]);
      }
    }
  }
  return out;
}

TEST_F(Backward, SoftmaxInBlocksIsThatOfTheWholeRow) {
  for (const std::int64_t v : {1, 2, 15, 16, 49, 260}) {
    for (const std::int64_t width : {1L, 7L, 16L, 64L, 1000L}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        Rows logits(4, v, 1, 8);
        const std::vector<std::int32_t> targets = {0, static_cast<std::int32_t>(v - 1), -1,
                                                   static_cast<std::int32_t>(v / 2)};
        const auto got = block_softmax(*backend_, logits, targets, width, dtype);
        float nll[4], entropy[4];
        std::int32_t argmax[4];
        backend_->token_loss(logits.matrix(), targets, nll, entropy, argmax);
        for (std::size_t r = 0; r < 4; ++r) {
          const SoftmaxRow& row = got.rows[r];
          const float* x = logits.values.data() + r * static_cast<std::size_t>(v);
          EXPECT_EQ(row.argmax, argmax[r]);
          EXPECT_EQ(row.highest, x[argmax[r]]);
          EXPECT_NEAR(row.entropy(), entropy[r], 2e-5 * (1 + entropy[r]));
          if (targets[r] >= 0) {
            EXPECT_NEAR(row.nll(), nll[r], 1e-5 * (1 + nll[r])) << v << " in " << width;
          }
          for (std::int64_t i = 0; i < v; ++i) {
            const double want = targets[r] < 0 || targets[r] == i
                                    ? 0.0
                                    : std::exp(double{x[i]} - double{row.highest});
            EXPECT_NEAR(got.exps[r * static_cast<std::size_t>(v) + static_cast<std::size_t>(i)],
                        want, (dtype == DType::kF32 ? 2e-5 : 5e-3) * want)
                << "row " << r << ", column " << i << " of " << v << " in " << width;
          }
        }
      }
    }
  }
}

TEST_F(Backward, AGrowingMaximumKeepsTheSumsFinite) {
  // From -300 to 300 in blocks that each outgrow the last: nothing overflows, and only the end
  // counts.
  Rows logits(1, 601, 1);
  for (std::size_t i = 0; i < 601; ++i) logits.values[i] = static_cast<float>(i) - 300;
  const std::vector<std::int32_t> targets = {600};
  const auto got = block_softmax(*backend_, logits, targets, 10, DType::kF32);
  const double sum = 1 / (1 - std::exp(-1.0));  // of e^-k
  EXPECT_NEAR(got.rows[0].sum, sum, 1e-5);
  EXPECT_NEAR(got.rows[0].nll(), std::log(sum), 1e-5);
  EXPECT_EQ(got.exps[0], 0.0f);
}

TEST_F(Backward, ANumberThatIsNotOneShowsInTheLoss) {
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    Rows logits(1, 64, 1);
    logits.values[20] = bad;
    const std::vector<std::int32_t> targets = {3};
    const auto got = block_softmax(*backend_, logits, targets, 16, DType::kF32);
    EXPECT_FALSE(std::isfinite(got.rows[0].nll())) << bad;
  }
}

TEST_F(Backward, RowsAreBlended) {
  for (const std::int64_t n : {1, 15, 16, 33}) {
    Rows y(3, n, 1), x(3, n, 2);
    const std::vector<float> before = y.values, a = {2, 1, 0}, b = {0.5f, -1, 3};
    backend_->blend_rows(y.matrix(), a, {}, {});
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_EQ(y.values[i], a[i / static_cast<std::size_t>(n)] * before[i]);
    y.values = before;
    backend_->blend_rows(y.matrix(), a, x.matrix(), b);
    for (std::size_t i = 0; i < before.size(); ++i) {
      const std::size_t r = i / static_cast<std::size_t>(n);
      EXPECT_NEAR(y.values[i], a[r] * before[i] + b[r] * x.values[i], 1e-6);
    }
  }
}

struct AttentionCase {
  AttentionShape shape;
  std::vector<std::int64_t> lengths;
};

// y[M, H d] from qkv, in double.
Doubles attention(const Doubles& qkv, const AttentionCase& c) {
  const std::int64_t d = c.shape.head_dim, width = (c.shape.heads + 2 * c.shape.kv_heads) * d;
  Doubles y(qkv.size() / static_cast<std::size_t>(width) *
            static_cast<std::size_t>(c.shape.heads * d));
  const auto at = [&](std::int64_t row, std::int64_t col) {
    return qkv[static_cast<std::size_t>(row * width + col)];
  };
  std::int64_t first = 0;
  for (const std::int64_t length : c.lengths) {
    for (std::int64_t t = 0; t < length; ++t) {
      for (std::int64_t h = 0; h < c.shape.heads; ++h) {
        const std::int64_t k = (c.shape.heads + h / (c.shape.heads / c.shape.kv_heads)) * d,
                           v = k + c.shape.kv_heads * d;
        Doubles p;
        double sum = 0;
        for (std::int64_t s = 0; s <= t; ++s) {
          double dot = 0;
          for (std::int64_t i = 0; i < d; ++i)
            dot += at(first + t, h * d + i) * at(first + s, k + i);
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
          sum += p.back();
        }
        for (std::int64_t i = 0; i < d; ++i) {
          double out = 0;
          for (std::int64_t s = 0; s <= t; ++s)
            out += p[static_cast<std::size_t>(s)] / sum * at(first + s, v + i);
          y[static_cast<std::size_t>((first + t) * c.shape.heads * d + h * d + i)] = out;
        }
      }
    }
    first += length;
  }
  return y;
}

// The same gradient written out (checked against finite differences below), for larger sizes.
Doubles attention_gradient(const Doubles& qkv, const AttentionCase& c, const Doubles& dy) {
  const std::int64_t d = c.shape.head_dim, width = (c.shape.heads + 2 * c.shape.kv_heads) * d;
  Doubles out(qkv.size(), 0.0);
  const auto index = [&](std::int64_t row, std::int64_t col) {
    return static_cast<std::size_t>(row * width + col);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  std::int64_t first = 0;
  for (const std::int64_t length : c.lengths) {
    for (std::int64_t row = first; row < first + length; ++row) {
      for (std::int64_t h = 0; h < c.shape.heads; ++h) {
        const std::int64_t q = h * d,
                           k = (c.shape.heads + h / (c.shape.heads / c.shape.kv_heads)) * d;
        const std::int64_t v = k + c.shape.kv_heads * d;
        Doubles p, dp;
        double sum = 0, mean = 0;
        for (std::int64_t s = first; s <= row; ++s) {
          double dot = 0, grad = 0;
          for (std::int64_t i = 0; i < d; ++i) {
            dot += qkv[index(row, q + i)] * qkv[index(s, k + i)];
            grad += dy[static_cast<std::size_t>(row * c.shape.heads * d + q + i)] *
                    qkv[index(s, v + i)];
          }
          p.push_back(std::exp(dot * scale));
          dp.push_back(grad);
          sum += p.back();
        }
        for (std::size_t s = 0; s < p.size(); ++s) p[s] /= sum, mean += p[s] * dp[s];
        for (std::int64_t s = first; s <= row; ++s) {
          const auto j = static_cast<std::size_t>(s - first);
          const double ds = p[j] * (dp[j] - mean) * scale;
          for (std::int64_t i = 0; i < d; ++i) {
            out[index(row, q + i)] += ds * qkv[index(s, k + i)];
            out[index(s, k + i)] += ds * qkv[index(row, q + i)];
            out[index(s, v + i)] +=
                p[j] * dy[static_cast<std::size_t>(row * c.shape.heads * d + q + i)];
          }
        }
      }
    }
    first += length;
  }
  return out;
}

TEST_F(Backward, AttentionsReferenceAgreesWithFiniteDifferences) {
  const AttentionCase c{{4, 2, 3}, {1, 5, 2}};
  Rows qkv(8, 24, 1), dy(8, 12, 2);
  const Doubles numeric = numeric_gradient(
      qkv.doubles(), [&](const Doubles& at) { return attention(at, c); }, dy.doubles());
  const Doubles exact = attention_gradient(qkv.doubles(), c, dy.doubles());
  for (std::size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(exact[i], numeric[i], 1e-7);
}

const AttentionCase kAttentionCases[] = {
    {{1, 1, 2}, {1}},    {{3, 1, 8}, {7, 64, 1}}, {{4, 2, 16}, {65, 3}},      {{2, 2, 33}, {40}},
    {{9, 3, 64}, {129}}, {{9, 3, 64}, {300, 33}}, {{2, 1, 40}, {63, 64, 65}},
};

std::vector<AttentionSpan> spans_of(const AttentionCase& c) {
  std::vector<AttentionSpan> spans;
  std::int64_t rows = 0;
  for (const std::int64_t length : c.lengths) {
    spans.push_back({rows, length, 0, {}});
    rows += length;
  }
  return spans;
}

TEST_F(Backward, AttentionAtAwkwardLengthsAndHeadSizes) {
  for (const AttentionCase& c : kAttentionCases) {
    const auto spans = spans_of(c);
    const std::int64_t rows = spans.back().row + spans.back().count, d = c.shape.head_dim;
    Rows qkv(rows, (c.shape.heads + 2 * c.shape.kv_heads) * d, 1, 2),
        dy(rows, c.shape.heads * d, 2), out = qkv;
    out.values.assign(out.values.size(), std::nanf(""));
    backend_->attention_backward(qkv.matrix(), c.shape, spans, dy.matrix(), out.matrix());
    expect_near(out.values, attention_gradient(qkv.doubles(), c, dy.doubles()), 3e-5, "attention");
  }
}

// Operands that bf16 holds exactly: what remains is the rounding of P and dS, 2^-9 of each term.
TEST_F(Backward, AttentionInBf16) {
  for (const AttentionCase& c : kAttentionCases) {
    const auto spans = spans_of(c);
    const std::int64_t rows = spans.back().row + spans.back().count, d = c.shape.head_dim;
    Rows qkv(rows, (c.shape.heads + 2 * c.shape.kv_heads) * d, 1, 2),
        dy(rows, c.shape.heads * d, 2), out = qkv;
    for (float& v : qkv.values) v = bf16_to_f32(f32_to_bf16(v));
    std::vector<std::uint16_t> bits(dy.values.size());
    for (std::size_t i = 0; i < bits.size(); ++i) {
      bits[i] = f32_to_bf16(dy.values[i]);
      dy.values[i] = bf16_to_f32(bits[i]);
    }
    out.values.assign(out.values.size(), std::nanf(""));
    backend_->attention_backward(qkv.matrix(), c.shape, spans,
                                 {bits.data(), DType::kBF16, rows, dy.cols, dy.cols}, out.matrix());
    expect_near(out.values, attention_gradient(qkv.doubles(), c, dy.doubles()), 6e-3, "attention");
  }
}

TEST_F(Backward, AttentionsBitsDoNotDependOnTheThreads) {
  const AttentionCase& c = kAttentionCases[5];
  const auto spans = spans_of(c);
  const std::int64_t rows = spans.back().row + spans.back().count, d = c.shape.head_dim;
  Rows qkv(rows, (c.shape.heads + 2 * c.shape.kv_heads) * d, 1, 2), dy(rows, c.shape.heads * d, 2),
      one = qkv, two = qkv;
  backend_->attention_backward(qkv.matrix(), c.shape, spans, dy.matrix(), two.matrix());
  open_backend(BackendOptions{"cpu", 1})
      .value()
      ->attention_backward(qkv.matrix(), c.shape, spans, dy.matrix(), one.matrix());
  EXPECT_EQ(one.values, two.values);
}

TEST_F(Backward, TheRotationsBackwardIsItsTranspose) {
  const AttentionShape shape{3, 1, 10};
  const std::int64_t width = 50, rows = 7;
  Rows x(rows, width, 1), dy(rows, width, 2);
  std::vector<float> keys(70), values(70);
  const AttentionSpan span{0, rows, 0, {keys.data(), values.data(), DType::kF32, rows}};
  Rows rotated = x, back = dy;
  backend_->rope_store(rotated.matrix(), shape, 10000.0f, {&span, 1});
  backend_->rope_backward(back.matrix(), shape, 10000.0f, {&span, 1});
  // <R x, dy> = <x, R^T dy>
  double left = 0, right = 0;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    left += double{rotated.values[i]} * double{dy.values[i]};
    right += double{x.values[i]} * double{back.values[i]};
  }
  EXPECT_NEAR(left, right, 1e-4);
  EXPECT_NE(back.values, dy.values);
  for (std::size_t r = 0; r < 7; ++r) {
    for (std::size_t i = 40; i < 50; ++i)
      EXPECT_EQ(back.values[r * 50 + i], dy.values[r * 50 + i]) << "v is not rotated";
  }
}

TEST_F(Backward, WeightGradientsAtAwkwardSizes) {
  for (const auto& [m, n, k] :
       {std::array<std::int64_t, 3>{1, 1, 1}, {5, 3, 7}, {33, 17, 1}, {64, 65, 31}}) {
    Rows a(m, n, 1), b(m, k, 2), c(n, k, 3);
    Doubles want = c.doubles(), fresh(want.size(), 0.0);
    for (std::int64_t r = 0; r < m; ++r) {
      for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t j = 0; j < k; ++j) {
          fresh[static_cast<std::size_t>(i * k + j)] +=
              double{a.values[static_cast<std::size_t>(r * n + i)]} *
              double{b.values[static_cast<std::size_t>(r * k + j)]};
        }
      }
    }
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += fresh[i];
    Rows added = c;
    backend_->matmul_tn(a.matrix(), b.matrix(), added.matrix(), /*accumulate=*/true);
    expect_near(added.values, want, 1e-5, "added");
    backend_->matmul_tn(a.matrix(), b.matrix(), c.matrix(), /*accumulate=*/false);
    expect_near(c.values, fresh, 1e-5, "written");
  }
}

TEST_F(Backward, AdamWFollowsItsDefinition) {
  for (const std::int64_t n : {1, 15, 16, 1003}) {
    Rows w(1, n, 1), m(1, n, 2, 0), v(1, n, 3, 0);
    Doubles rw = w.doubles(), rm(rw.size(), 0.0), rv(rw.size(), 0.0);
    for (int t = 1; t <= 3; ++t) {
      Rows g(1, n, 10 + static_cast<std::uint64_t>(t));
      const AdamWStep step{1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, t};
      backend_->adamw(w.values.data(), g.values.data(), m.values.data(), v.values.data(), n, step);
      for (std::size_t i = 0; i < rw.size(); ++i) {
        const double grad = double{g.values[i]};
        rm[i] = 0.9 * rm[i] + 0.1 * grad;
        rv[i] = 0.95 * rv[i] + 0.05 * grad * grad;
        const double mh = rm[i] / (1 - std::pow(0.9, t)), vh = rv[i] / (1 - std::pow(0.95, t));
        rw[i] = rw[i] * (1 - 1e-2 * 0.1) - 1e-2 * mh / (std::sqrt(vh) + 1e-8);
      }
    }
    expect_near(w.values, rw, 1e-6, "weights");
  }
}

}  // namespace
}  // namespace memslot
