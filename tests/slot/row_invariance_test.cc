// Every kind at the default model's sizes, in both weight types: a row's bits do not depend on how
// many rows are computed with it.
#include <gtest/gtest.h>

#include "generator/backend/open_backend.h"
#include "generator/slot/any_memory.h"
#include "shared/base/digest.h"
#include "tests/slot/payloads.h"

namespace memslot {
namespace {

using namespace testing_support;

constexpr std::int32_t kD = 576, kF = 1536;
constexpr std::int64_t kRows = 37;

class RowInvariance : public ::testing::TestWithParam<DType> {
 protected:
  RowInvariance() : backend_(open_backend(BackendOptions{"cpu", 2}).value()), scratch_(*backend_) {}

  bool supported() const {
    return backend_->info().row_invariant && (GetParam() == DType::kF32 || backend_->info().bf16);
  }

  // The rows in pieces, from a fresh state.
  template <class M>
  std::vector<float> run(const M& memory, const MlpWeights& base, ConstMatrix x,
                         std::int64_t piece) {
    std::vector<float> y(static_cast<std::size_t>(kRows * kD));
    const Matrix out{y.data(), DType::kF32, kRows, kD, kD};
    auto state = memory.start(*backend_);
    for (std::int64_t row = 0; row < kRows; row += piece) {
      const std::int64_t n = std::min(piece, kRows - row);
      memory.forward({*backend_, base, x.slice_rows(row, n), out.slice_rows(row, n), scratch_},
                     state);
    }
    return y;
  }

  void expect_invariant(const MemoryPayload& payload, const MemoryPayload* outer = nullptr) {
    const DType dtype = GetParam();
    const auto base_payload =
        random_mlp(signature_of(MemoryKind::kMlp, MlpForm::kSwiGlu, kD, kF), dtype);
    const MlpMemory base = MlpMemory::load(base_payload, nullptr, *backend_, dtype).value();
    const auto values = random_values(kRows * kD, 50, 2);
    std::vector<std::byte> bytes(values.size() * dtype_size(dtype));
    const Matrix x{bytes.data(), dtype, kRows, kD, kD};
    backend_->copy({values.data(), DType::kF32, kRows, kD, kD}, x);
    const AnyMemory memory = load_any(payload, outer, *backend_, dtype).value();
    std::visit(
        [&](const auto& kind) {
          const auto whole = run(kind, base.weights(), x, kRows);
          for (const std::int64_t piece : {std::int64_t{1}, std::int64_t{16}}) {
            EXPECT_EQ(run(kind, base.weights(), x, piece), whole) << "by " << piece;
          }
        },
        memory.kind);
  }

  std::unique_ptr<Backend> backend_;
  SlotScratch scratch_;
};

TEST_P(RowInvariance, OfMlps) {
  if (!supported()) GTEST_SKIP() << "SKIPPED: this backend is not row-invariant in this type";
  expect_invariant(
      random_mlp(signature_of(MemoryKind::kMlp, MlpForm::kSwiGlu, kD, kF), GetParam(), 9));
}

TEST_P(RowInvariance, OfLorasOfAnyRank) {
  if (!supported()) GTEST_SKIP() << "SKIPPED: this backend is not row-invariant in this type";
  for (const std::int64_t rank : {1, 17}) {
    SCOPED_TRACE(rank);
    expect_invariant(random_lora(signature_of(MemoryKind::kLora, MlpForm::kSwiGlu, kD, kF),
                                 GetParam(), rank, 0.3));
  }
}

TEST_P(RowInvariance, OfDeltas) {
  if (!supported()) GTEST_SKIP() << "SKIPPED: this backend is not row-invariant in this type";
  for (const bool gate : {false, true}) {
    const auto fresh = make_fresh_delta(signature_of(MemoryKind::kDelta, MlpForm::kSwiGlu, kD, kF),
                                        {9, 64, 64, gate}, DType::kF32, 4)
                           .value();
    DeltaOuterValues v = to_values(DeltaOuterView::parse(fresh.outer).value());
    v.slot_gate.assign(v.slot_gate.size(), 1.0f);
    SlotSignature s = fresh.outer.signature();
    const MemoryPayload outer = make_delta_outer(s, DType::kF32, v).value();
    s.outer = sha256(outer.bytes());
    expect_invariant(make_delta_state(s, v.shape, DeltaStateValues::zero(v.shape)).value(), &outer);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RowInvariance, ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace memslot
