#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "shared/base/digest.h"
#include "shared/memory/layout/check_layout.h"
#include "tests/slot/payloads.h"
#include "tests/support/small_payload.h"

namespace memslot {
namespace {

using namespace testing_support;

SlotSignature small(MemoryKind kind, MlpForm form = MlpForm::kSwiGlu) {
  return signature_of(kind, form, 6, 10);
}

// As tensors with other names, shapes or scalars would come from a file.
template <class Fill>
MemoryPayload built(const SlotSignature& s, Fill&& fill) {
  MemoryPayloadBuilder builder(s, DType::kF32);
  fill(builder);
  return builder.finish().value();
}

TEST(MlpLayout, GivesBackWhatWasPutInForBothForms) {
  for (const MlpForm form : {MlpForm::kSwiGlu, MlpForm::kGeluTanh}) {
    const auto payload = random_mlp(small(MemoryKind::kMlp, form), DType::kF32);
    const auto view = MlpView::parse(payload);
    ASSERT_TRUE(view) << view.error().message;
    const MlpValues values = to_values(view.value());
    EXPECT_EQ(values.down, random_values(60, 101));
    EXPECT_EQ(values.gate.empty(), form == MlpForm::kGeluTanh);
    EXPECT_EQ(values.up_bias.size(), form == MlpForm::kGeluTanh ? 10u : 0u);
  }
}

TEST(MlpLayout, RefusesAnotherKind) {
  const auto view = MlpView::parse(random_lora(small(MemoryKind::kLora), DType::kF32, 2, 0.1));
  ASSERT_FALSE(view);
  EXPECT_EQ(view.error().code, ErrorCode::kMismatch);
  EXPECT_NE(view.error().message.find("lora"), std::string::npos) << view.error().message;
}

TEST(MlpLayout, RefusesMissingSurplusAndMisshapenTensors) {
  const auto s = small(MemoryKind::kMlp);
  const auto w = random_values(60, 1);
  const auto missing = built(s, [&](auto& b) {
    b.tensor("gate", Shape{10, 6}, w).tensor("up", Shape{10, 6}, w);
  });
  EXPECT_EQ(MlpView::parse(missing).error().code, ErrorCode::kMismatch);
  const auto surplus = built(s, [&](auto& b) {
    b.tensor("gate", Shape{10, 6}, w).tensor("up", Shape{10, 6}, w).tensor("down", Shape{6, 10}, w);
    b.tensor("more", Shape{6, 10}, w);
  });
  EXPECT_EQ(MlpView::parse(surplus).error().code, ErrorCode::kMismatch);
  const auto swapped = built(s, [&](auto& b) {
    b.tensor("gate", Shape{10, 6}, w).tensor("up", Shape{10, 6}, w).tensor("down", Shape{10, 6}, w);
  });
  EXPECT_EQ(MlpView::parse(swapped).error().code, ErrorCode::kMismatch);
}

TEST(LoraLayout, GivesBackWhatWasPutIn) {
  const auto payload = random_lora(small(MemoryKind::kLora), DType::kF32, 3, 0.1);
  const auto view = LoraView::parse(payload);
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view.value().rank, 3);
  EXPECT_FLOAT_EQ(view.value().scale(), 2.0f);
  EXPECT_EQ(to_values(view.value()).gate.a, random_values(18, 11));
}

TEST(LoraLayout, RefusesRanksAndAlphasOutOfLimits) {
  const auto s = small(MemoryKind::kLora, MlpForm::kGeluTanh);
  const auto with = [&](double rank, double alpha) {
    return built(s, [&](auto& b) {
      b.scalar("rank", rank).scalar("alpha", alpha);
      b.tensor("up.A", Shape{2, 6}, random_values(12, 1))
          .tensor("up.B", Shape{10, 2}, random_values(20, 1));
      b.tensor("down.A", Shape{2, 10}, random_values(20, 1))
          .tensor("down.B", Shape{6, 2}, random_values(12, 1));
    });
  };
  ASSERT_TRUE(LoraView::parse(with(2, 4)));
  for (const double rank : {0.0, -1.0, 2.5, 7.0, 1e9}) {
    EXPECT_EQ(LoraView::parse(with(rank, 4)).error().code, ErrorCode::kCorruption) << rank;
  }
  for (const double alpha : {0.0, -1.0, 1e9}) {
    EXPECT_EQ(LoraView::parse(with(2, alpha)).error().code, ErrorCode::kCorruption) << alpha;
  }
  EXPECT_EQ(LoraView::parse(with(1, 4)).error().code, ErrorCode::kMismatch)
      << "tensors are of rank 2";
}

TEST(DeltaLayout, AFreshMemoryHasAZeroGateAndAnEmptyState) {
  const DeltaShape shape{2, 4, 3, true};
  const auto fresh = make_fresh_delta(small(MemoryKind::kDelta), shape, DType::kBF16, 5);
  ASSERT_TRUE(fresh) << fresh.error().message;
  const auto outer = DeltaOuterView::parse(fresh.value().outer);
  ASSERT_TRUE(outer) << outer.error().message;
  EXPECT_EQ(outer.value().shape, shape);
  for (const float g : to_f32(outer.value().slot_gate)) EXPECT_EQ(g, 0.0f);
  const auto state = DeltaStateView::parse(fresh.value().state, shape);
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(state.value().position, 0);
  EXPECT_EQ(state.value().s.dtype, DType::kF32);
  EXPECT_EQ(fresh.value().state.signature().outer, sha256(fresh.value().outer.bytes()));
  const auto again = make_fresh_delta(small(MemoryKind::kDelta), shape, DType::kBF16, 5);
  EXPECT_EQ(sha256(again.value().outer.bytes()), sha256(fresh.value().outer.bytes()));
  const auto other = make_fresh_delta(small(MemoryKind::kDelta), shape, DType::kBF16, 6);
  EXPECT_NE(sha256(other.value().outer.bytes()), sha256(fresh.value().outer.bytes()));
}

TEST(DeltaLayout, FreshProjectionsHaveTheStatedDeviation) {
  const auto fresh = make_fresh_delta(signature_of(MemoryKind::kDelta, MlpForm::kSwiGlu, 64, 96),
                                      {4, 16, 16, false}, DType::kF32, 1);
  const auto q = to_f32(DeltaOuterView::parse(fresh.value().outer).value().q_proj);
  double sum = 0, squares = 0;
  for (const float v : q) sum += double{v}, squares += double{v} * double{v};
  const auto n = static_cast<double>(q.size());
  EXPECT_NEAR(sum / n, 0, 0.002);
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 0.001);
}

TEST(DeltaLayout, OuterParametersAndStateAreNotTakenForEachOther) {
  const DeltaShape shape{2, 4, 3, false};
  const auto fresh = make_fresh_delta(small(MemoryKind::kDelta), shape, DType::kF32, 5).value();
  EXPECT_EQ(DeltaOuterView::parse(fresh.state).error().code, ErrorCode::kMismatch);
  EXPECT_EQ(DeltaStateView::parse(fresh.outer, shape).error().code, ErrorCode::kMismatch);
}

TEST(DeltaLayout, RefusesAStateOfAnotherShape) {
  const auto fresh =
      make_fresh_delta(small(MemoryKind::kDelta), {2, 4, 3, false}, DType::kF32, 5).value();
  EXPECT_EQ(DeltaStateView::parse(fresh.state, {2, 3, 3, false}).error().code,
            ErrorCode::kMismatch);
}

TEST(CheckLayout, TakesEveryKindAndFormAndRefusesThemUnderAnyOther) {
  const auto delta = make_fresh_delta(small(MemoryKind::kDelta), {2, 4, 3, true}, DType::kF32, 5);
  struct Case {
    MemoryKind kind;
    MlpForm form;
    const MemoryPayload& payload;
  };
  const auto swiglu = MlpForm::kSwiGlu, gelu = MlpForm::kGeluTanh;
  const auto mlp = random_mlp(small(MemoryKind::kMlp, swiglu), DType::kF32);
  const auto gelu_mlp = random_mlp(small(MemoryKind::kMlp, gelu), DType::kF32);
  const auto lora = random_lora(small(MemoryKind::kLora, swiglu), DType::kF32, 2, 0.1);
  const auto gelu_lora = random_lora(small(MemoryKind::kLora, gelu), DType::kF32, 2, 0.1);
  const std::vector<Case> cases = {{MemoryKind::kMlp, swiglu, mlp},
                                   {MemoryKind::kMlp, gelu, gelu_mlp},
                                   {MemoryKind::kLora, swiglu, lora},
                                   {MemoryKind::kLora, gelu, gelu_lora},
                                   {MemoryKind::kDelta, swiglu, delta.value().outer},
                                   {MemoryKind::kDelta, swiglu, delta.value().state}};
  for (const Case& one : cases) {
    const auto good = check_layout(one.payload);
    EXPECT_TRUE(good) << good.error().message;
    for (const Case& other : cases) {
      if (other.kind == one.kind && (other.form == one.form || one.kind == MemoryKind::kDelta))
        continue;
      const auto found = check_layout(signed_as(one.payload, other.kind, other.form));
      ASSERT_FALSE(found) << memory_kind_name(one.kind) << memory_kind_name(other.kind);
      EXPECT_EQ(found.error().code, ErrorCode::kMismatch) << found.error().message;
      EXPECT_NE(found.error().message.find("expected"), std::string::npos);
    }
  }
}

TEST(CheckLayout, NamesTheTensorsThatItExpectedAndFound) {
  const auto lora = random_lora(small(MemoryKind::kLora), DType::kF32, 2, 0.1);
  EXPECT_EQ(check_layout(signed_as(lora, MemoryKind::kMlp)).error().message,
            "tensors of a payload of kind mlp and form swiglu: expected down, gate, up, found "
            "down.A, down.B, gate.A, gate.B, up.A, up.B");
}

TEST(CheckLayout, RefusesADeltaStateOfNoPossibleSize) {
  auto s = small(MemoryKind::kDelta);
  s.outer.bytes[0] = 1;
  const auto state = [&](const Shape& shape) {
    return built(s, [&](auto& b) {
      b.scalar("position", 0);
      b.tensor("S:f32", shape, random_values(shape.elements(), 1));
      for (const char* name : {"conv_q:f32", "conv_k:f32", "conv_v:f32"})
        b.tensor(name, Shape{2, 4}, random_values(8, 2));
    });
  };
  EXPECT_TRUE(check_layout(state(Shape{1, 2, 2})));
  EXPECT_EQ(check_layout(state(Shape{1, 3, 2})).error().code, ErrorCode::kMismatch);
  EXPECT_EQ(check_layout(state(Shape{2, 2})).error().code, ErrorCode::kMismatch);
  EXPECT_EQ(check_layout(state(Shape{1, 2000, 1})).error().code, ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot
