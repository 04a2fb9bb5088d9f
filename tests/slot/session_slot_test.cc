#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/slot/payloads.h"
#include "tests/slot/tiny_slot.h"

namespace memslot {
namespace {

using namespace testing_support;

std::vector<std::int32_t> some_tokens(int count) {
  std::vector<std::int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((i * 37 + 11) % 256);
  return ids;
}

class SessionSlots : public ::testing::TestWithParam<const char*> {
 protected:
  SessionSlots()
      : model_(GetParam()), tokens_(some_tokens(23)), base_(model_.logits(tokens_, nullptr)) {}
  FreshDelta fresh_delta(bool gate = false) {
    return make_fresh_delta(model_.signature(MemoryKind::kDelta), {2, 8, 8, gate}, DType::kF32, 3)
        .value();
  }
  // A delta memory whose slot gate is not zero, so that it changes what the model says.
  FreshDelta open_delta() {
    FreshDelta fresh = fresh_delta();
    DeltaOuterValues v = to_values(DeltaOuterView::parse(fresh.outer).value());
    for (auto* part : {&v.o_proj, &v.q_proj, &v.k_proj, &v.v_proj}) {
      for (float& w : *part) w *= 10;
    }
    v.slot_gate.assign(v.slot_gate.size(), 0.7f);
    SlotSignature s = fresh.outer.signature();
    MemoryPayload outer = make_delta_outer(s, DType::kF32, v).value();
    s.outer = sha256(outer.bytes());
    MemoryPayload state = make_delta_state(s, v.shape, DeltaStateValues::zero(v.shape)).value();
    return {std::move(outer), std::move(state)};
  }

  TinySlot model_;
  std::vector<std::int32_t> tokens_;
  std::vector<float> base_;
};

TEST_P(SessionSlots, AnEmptySlotHasTheModelsOwnBits) {
  SessionSlot slot(*model_.gpt, 0);
  EXPECT_EQ(model_.logits(tokens_, &slot), base_);
  EXPECT_EQ(slot.digest(), "");
  EXPECT_FALSE(slot.dirty());
}

TEST_P(SessionSlots, LoadingRunningAndUnloadingLeavesBaseBitEqual) {
  const Sha256 before = model_.gpt->attest().value();
  SessionSlot slot(*model_.gpt, 0);
  const FreshDelta delta = open_delta();
  const auto s = [&](MemoryKind kind) { return model_.signature(kind); };
  const std::shared_ptr<const LoadedMemory> memories[] = {
      must(model_.load(random_mlp(s(MemoryKind::kMlp), DType::kBF16))),
      must(model_.load(random_lora(s(MemoryKind::kLora), DType::kF32, 4, 0.5))),
      must(model_.load(delta.state, &delta.outer))};
  for (const auto& memory : memories) {
    slot.activate(memory);
    EXPECT_NE(model_.logits(tokens_, &slot), base_) << memory_kind_name(memory->kind());
    EXPECT_EQ(slot.active(), memory);
    slot.activate(nullptr);
    EXPECT_EQ(model_.logits(tokens_, &slot), base_) << memory_kind_name(memory->kind());
  }
  EXPECT_EQ(model_.gpt->attest().value(), before);
}

TEST_P(SessionSlots, AFreshDeltaGivesBasesLogitsWhileItsStateMoves) {
  for (const bool gate : {false, true}) {
    const FreshDelta fresh = fresh_delta(gate);
    SessionSlot slot(*model_.gpt, 0);
    slot.activate(must(model_.load(fresh.state, &fresh.outer)));
    EXPECT_EQ(model_.logits(tokens_, &slot), base_);
    EXPECT_TRUE(slot.dirty());
    EXPECT_NE(sha256(slot.snapshot().value().bytes()), sha256(fresh.state.bytes()));
  }
}

TEST_P(SessionSlots, AFreshLoraGivesBasesLogits) {
  SessionSlot slot(*model_.gpt, 0);
  slot.activate(
      must(model_.load(random_lora(model_.signature(MemoryKind::kLora), DType::kF32, 4, 0.0))));
  EXPECT_EQ(model_.logits(tokens_, &slot), base_);
}

TEST_P(SessionSlots, ReadingInPiecesHasTheBitsOfReadingAtOnce) {
  if (!model_.backend->info().row_invariant)
    GTEST_SKIP() << "SKIPPED: this backend is not row-invariant";
  const FreshDelta delta = open_delta();
  const std::shared_ptr<const LoadedMemory> memories[] = {
      must(model_.load(random_mlp(model_.signature(MemoryKind::kMlp), DType::kF32))),
      must(model_.load(random_lora(model_.signature(MemoryKind::kLora), DType::kF32, 3, 0.5))),
      must(model_.load(delta.state, &delta.outer))};
  for (const auto& memory : memories) {
    SessionSlot slot(*model_.gpt, 0);
    slot.activate(memory);
    const auto whole = model_.logits(tokens_, &slot);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{16}}) {
      slot.activate(memory);
      EXPECT_EQ(model_.logits(tokens_, &slot, piece), whole)
          << memory_kind_name(memory->kind()) << " by " << piece;
    }
  }
}

TEST_P(SessionSlots, ASnapshotRestoredGoesOnWithTheSameBits) {
  if (!model_.backend->info().row_invariant)
    GTEST_SKIP() << "SKIPPED: this backend is not row-invariant";
  const FreshDelta delta = open_delta();
  const auto memory = must(model_.load(delta.state, &delta.outer));
  SessionSlot slot(*model_.gpt, 0), other(*model_.gpt, 0);
  slot.activate(memory);
  model_.logits(tokens_, &slot);
  const MemoryPayload saved = slot.snapshot().value();
  EXPECT_EQ(DeltaStateView::parse(saved, {2, 8, 8, false}).value().position, 23);
  const auto then = model_.logits(tokens_, &slot);
  other.activate(memory);
  must(other.restore(saved));
  EXPECT_TRUE(other.dirty()) << "another state than the loaded version's";
  EXPECT_EQ(model_.logits(tokens_, &other), then);
}

TEST_P(SessionSlots, StatelessKindsHaveNothingToSaveOrRestore) {
  SessionSlot slot(*model_.gpt, 0);
  EXPECT_EQ(slot.snapshot().error().code, ErrorCode::kNotSupported);
  const auto payload = random_mlp(model_.signature(MemoryKind::kMlp), DType::kF32);
  EXPECT_EQ(slot.restore(payload).error().code, ErrorCode::kMismatch);
  slot.activate(must(model_.load(payload)));
  model_.logits(tokens_, &slot);
  EXPECT_FALSE(slot.dirty());
  EXPECT_EQ(slot.snapshot().error().code, ErrorCode::kNotSupported);
  EXPECT_EQ(slot.digest(), sha256(payload.bytes()).hex());
}

TEST_P(SessionSlots, AnUnfitStateIsRefusedAndTheOldOneStays) {
  const FreshDelta delta = open_delta(), other = fresh_delta();
  SessionSlot slot(*model_.gpt, 0);
  slot.activate(must(model_.load(delta.state, &delta.outer)));
  model_.logits(tokens_, &slot);
  const Sha256 before = sha256(slot.snapshot().value().bytes());
  EXPECT_EQ(slot.restore(other.state).error().code, ErrorCode::kMismatch)
      << "other outer parameters";
  EXPECT_EQ(sha256(slot.snapshot().value().bytes()), before);
}

// --- what load() refuses ---

MemoryPayload damaged(const MemoryPayload& payload, float value) {
  std::vector<std::byte> bytes(payload.bytes().begin(), payload.bytes().end());
  std::memcpy(bytes.data() + payload.tensors().at(0).offset, &value, sizeof(value));
  return must(MemoryPayload::parse(std::move(bytes)));
}

TEST_P(SessionSlots, NonFiniteValuesAreRefused) {
  const auto good = random_mlp(model_.signature(MemoryKind::kMlp), DType::kF32);
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto loaded = model_.load(damaged(good, value));
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ErrorCode::kCorruption);
    EXPECT_NE(loaded.error().message.find(good.tensors().at(0).name), std::string::npos)
        << loaded.error().message;
  }
}

TEST_P(SessionSlots, BytesThatAreNotThoseNamedAreRefused) {
  const auto good = random_mlp(model_.signature(MemoryKind::kMlp), DType::kF32);
  const auto loaded =
      LoadedMemory::load(damaged(good, 0.25f), MemoryRef{"default", "m", 1}, sha256(good.bytes()),
                         good.signature(), nullptr, *model_.gpt);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kCorruption);
}

TEST_P(SessionSlots, AnotherModelLayerKindOrSizeIsRefused) {
  const auto refused = [&](const std::function<void(SlotSignature&)>& change) {
    SlotSignature s = model_.signature(MemoryKind::kMlp);
    change(s);
    const MemoryPayload payload = random_mlp(s, DType::kF32);
    const auto loaded =
        LoadedMemory::load(payload, MemoryRef{}, sha256(payload.bytes()),
                           model_.signature(MemoryKind::kMlp), nullptr, *model_.gpt);
    return loaded.has_value() ? ErrorCode::kInternal : loaded.error().code;
  };
  EXPECT_EQ(refused([](auto& s) { s.model.bytes[5] = 9; }), ErrorCode::kMismatch);
  EXPECT_EQ(refused([](auto& s) { s.layer = 1; }), ErrorCode::kMismatch);
  EXPECT_EQ(refused([](auto& s) { s.d_ff /= 2; }), ErrorCode::kMismatch);
  EXPECT_EQ(refused([](auto& s) { s.d_model /= 2; }), ErrorCode::kMismatch);
  const auto lora = random_lora(model_.signature(MemoryKind::kLora), DType::kF32, 4, 0.1);
  const auto loaded = LoadedMemory::load(lora, MemoryRef{}, sha256(lora.bytes()),
                                         model_.signature(MemoryKind::kMlp), nullptr, *model_.gpt);
  EXPECT_EQ(loaded.error().code, ErrorCode::kMismatch);
}

TEST_P(SessionSlots, ADeltaMemoryWithoutItsOuterParametersIsRefused) {
  const FreshDelta delta = fresh_delta(), other = open_delta();
  const auto slot = model_.signature(MemoryKind::kDelta, sha256(delta.outer.bytes()));
  for (const MemoryPayload* outer : {static_cast<const MemoryPayload*>(nullptr), &other.outer}) {
    const auto loaded = LoadedMemory::load(delta.state, MemoryRef{}, sha256(delta.state.bytes()),
                                           slot, outer, *model_.gpt);
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ErrorCode::kMismatch);
  }
}

TEST_P(SessionSlots, ARefusedMemoryLeavesTheOldOneActive) {
  SessionSlot slot(*model_.gpt, 0);
  const auto good = random_mlp(model_.signature(MemoryKind::kMlp), DType::kF32);
  slot.activate(must(model_.load(good)));
  const auto before = model_.logits(tokens_, &slot);
  ASSERT_FALSE(model_.load(damaged(good, std::nanf(""))));
  EXPECT_EQ(model_.logits(tokens_, &slot), before);
}

INSTANTIATE_TEST_SUITE_P(BothFamilies, SessionSlots, ::testing::Values("llama", "gpt2"));

}  // namespace
}  // namespace memslot
