// On a row-invariant backend nothing about the schedule of calls changes bits: chunks, batches,
// thread counts, a recompute instead of a cold run. Elsewhere only that the claim is withdrawn is
// tested.
#include <gtest/gtest.h>

#include <random>

#include "tests/gpt/gpt_harness.h"

namespace memslot::testing_support {
namespace {

// Stateless stand-in for a memory: base's answer, scaled.
SlotForward scaled_base(const GptHarness& h, std::vector<float> scales) {
  return [&h, scales](const SlotCall& call) {
    const int layer = h.gpt->options().slot_layers[call.slot];
    Rows base(*h.backend, call.x.rows, call.y.cols);
    h.gpt->mlp(h.gpt->layer(layer).mlp, call.x, base.matrix());
    h.gpt->mlp(h.gpt->layer(layer).mlp, call.x, call.y);
    h.backend->add(base.matrix(), scales[call.slot] - 1.0f, call.y);
  };
}

struct BitsCase {
  std::string model;
  DType weights;
};

std::vector<BitsCase> bits_cases() {
  std::vector<BitsCase> out;
  const auto info = open_backend({}).value()->info();
  for (const auto& pattern : {"llama_tiny_theta10000_hf", "gpt2_tiny_hf"}) {
    for (const auto& folder : fixtures_matching(pattern)) {
      out.push_back({folder, DType::kF32});
      if (info.bf16) out.push_back({folder, DType::kBF16});
    }
  }
  return out;
}

class GptBits : public testing::TestWithParam<BitsCase> {
 protected:
  void SetUp() override {
    if (!h_.backend->info().row_invariant) {
      EXPECT_FALSE(h_.backend->info().isa.starts_with("avx512"));
      GTEST_SKIP() << "the backend does not claim row-invariance (" << h_.backend->info().isa
                   << ")";
    }
  }
  GptHarness h_ =
      GptHarness::open(GetParam().model, {.weights = GetParam().weights, .slot_layers = {1, 2}});
  Ids ids_ = some_ids(60, h_.gpt->config().vocab);

  Ids part(std::size_t first, std::size_t count) const {
    return {ids_.begin() + static_cast<std::ptrdiff_t>(first),
            ids_.begin() + static_cast<std::ptrdiff_t>(first + count)};
  }
};

TEST_P(GptBits, ChunksOfAnySizeGiveTheHiddenStatesOfOneRead) {
  auto whole_kv = h_.kv(1);
  const auto whole = h_.hidden(ids_, whole_kv);
  std::mt19937 random(1);
  for (int trial = 0; trial < 10; ++trial) {
    auto cache = h_.kv(1);
    std::vector<float> got;
    for (std::size_t at = 0; at < ids_.size();) {
      const auto count = std::min<std::size_t>(ids_.size() - at, 1 + random() % 20);
      const auto rows = h_.hidden(part(at, count), cache);
      got.insert(got.end(), rows.begin(), rows.end());
      at += count;
    }
    EXPECT_TRUE(same_bits(got, whole));
  }
}

TEST_P(GptBits, LastRowAloneIsTheLastRowOfAll) {
  auto a = h_.kv(), b = h_.kv();
  const auto all = h_.hidden(ids_, a), last = h_.hidden(ids_, b, nullptr, /*last_only=*/true);
  EXPECT_TRUE(same_bits(last, std::span(all).last(last.size())));
  EXPECT_TRUE(same_bits(h_.hidden({5}, a), h_.hidden({5}, b)));  // the caches agree too
}

TEST_P(GptBits, SequencesOfABatchDoNotSeeEachOther) {
  const auto memory = scaled_base(h_, {1.5f, 0.5f});
  const auto other = some_ids(33, h_.gpt->config().vocab, 9);
  auto a_alone = h_.kv(), b_alone = h_.kv(), a = h_.kv(), b = h_.kv();
  auto want = h_.hidden(ids_, a_alone, &memory);
  const auto want_b = h_.hidden(other, b_alone);
  want.insert(want.end(), want_b.begin(), want_b.end());
  Sequence batch[] = {{ids_, &a, &memory, {"x", "x"}}, {other, &b, nullptr, {}}};
  Rows hidden(*h_.backend, std::ssize(ids_) + std::ssize(other), h_.gpt->config().d_model);
  ASSERT_TRUE(h_.gpt->forward(batch, hidden.matrix(), /*last_only=*/false).has_value());
  EXPECT_TRUE(same_bits(hidden.floats(), want));
  Rows last(*h_.backend, 2, h_.gpt->config().d_model);
  const Ids next = {3}, next_b = {4};
  batch[0].tokens = next, batch[1].tokens = next_b;
  ASSERT_TRUE(h_.gpt->forward(batch, last.matrix(), /*last_only=*/true).has_value());
  auto want_last = h_.hidden(next, a_alone, &memory);
  const auto second = h_.hidden(next_b, b_alone);
  want_last.insert(want_last.end(), second.begin(), second.end());
  EXPECT_TRUE(same_bits(last.floats(), want_last));
}

TEST_P(GptBits, OneThreadGivesTheBitsOfTwo) {
  auto cache = h_.kv();
  const auto one = GptHarness::open(GetParam().model, h_.gpt->options(), /*threads=*/1);
  const auto two = GptHarness::open(GetParam().model, h_.gpt->options(), /*threads=*/2);
  auto a = one.kv(), b = two.kv();
  EXPECT_TRUE(same_bits(one.hidden(ids_, a), two.hidden(ids_, b)));
}

// Random schedules of swaps: after each recompute the session is what a cold run would be.
TEST_P(GptBits, RecomputeIsAColdRunWithTheNewMemories) {
  std::mt19937 random(7);
  for (int schedule = 0; schedule < 20; ++schedule) {
    std::vector<float> scales = {1.0f, 1.0f};
    auto live = h_.kv(1);
    std::size_t at = 0;
    while (at < ids_.size() - 1) {
      const std::size_t slot = random() % 2;
      scales[slot] = 0.5f + static_cast<float>(random() % 16) / 8.0f;
      const auto memory = scaled_base(h_, scales);
      const auto count = std::min<std::size_t>(ids_.size() - 1 - at, 1 + random() % 20);
      Sequence sequence{{}, &live, &memory, {"a", "b"}};
      Rows last(*h_.backend, 1, h_.gpt->config().d_model);
      ASSERT_TRUE(
          h_.gpt->recompute(sequence, slot, at == 0 ? Matrix{} : last.matrix()).has_value());
      if (at > 0) {
        auto cold_kv = h_.kv();
        EXPECT_TRUE(same_bits(last.floats(), h_.hidden(part(0, at), cold_kv, &memory, true)));
      }
      h_.hidden(part(at, count), live, &memory);
      at += count;
      auto cold_kv = h_.kv();
      h_.hidden(part(0, at), cold_kv, &memory);
      const Ids probe = {ids_[at]};
      EXPECT_TRUE(same_bits(h_.hidden(probe, live, &memory), h_.hidden(probe, cold_kv, &memory)));
      live.truncate(static_cast<std::int64_t>(at));
    }
  }
}

TEST_P(GptBits, RecomputeToBaseIsTheSessionThatNeverHadAMemory) {
  const auto memory = scaled_base(h_, {2.0f, 3.0f});
  auto live = h_.kv(), cold = h_.kv();
  h_.hidden(ids_, live, &memory);
  Sequence base{{}, &live, nullptr, {"", ""}};
  ASSERT_TRUE(h_.gpt->recompute(base, 0, {}).has_value());
  h_.hidden(ids_, cold);
  EXPECT_TRUE(same_bits(h_.hidden({1}, live), h_.hidden({1}, cold)));
  EXPECT_EQ(live.spans().size(),
            2U);  // the recomputed ones ("", "") and the last token without labels
}

TEST_P(GptBits, ASlotThatAnswersAsBaseIsBase) {
  const SlotForward base = [this](const SlotCall& call) {
    h_.gpt->mlp(h_.gpt->layer(h_.gpt->options().slot_layers[call.slot]).mlp, call.x, call.y);
  };
  auto a = h_.kv(), b = h_.kv();
  EXPECT_TRUE(same_bits(h_.hidden(ids_, a, &base), h_.hidden(ids_, b)));
}

// Holds everywhere, also where row-invariance is not claimed: the fallback of a replay.
class GptSchedule : public GptBits {
 protected:
  void SetUp() override {}
};

TEST_P(GptSchedule, TheSameCallsGiveTheSameBits) {
  const auto memory = scaled_base(h_, {1.5f, 0.75f});
  std::vector<std::vector<float>> runs;
  for (int run = 0; run < 3; ++run) {
    auto cache = h_.kv(1);
    std::vector<float> got;
    for (const auto& [first, count] : {std::pair{0UL, 17UL}, {17UL, 1UL}, {18UL, 30UL}}) {
      const auto rows = h_.hidden(part(first, count), cache, first == 17 ? nullptr : &memory);
      got.insert(got.end(), rows.begin(), rows.end());
    }
    runs.push_back(got);
    EXPECT_TRUE(same_bits(runs[0], got));
  }
}

const auto bits_case_name = [](const testing::TestParamInfo<BitsCase>& test) {
  return (test.param.model.find("gpt2") == std::string::npos ? std::string("llama_")
                                                             : std::string("gpt2_")) +
         std::string(dtype_name(test.param.weights));
};
INSTANTIATE_TEST_SUITE_P(Models, GptSchedule, testing::ValuesIn(bits_cases()), bits_case_name);
INSTANTIATE_TEST_SUITE_P(Models, GptBits, testing::ValuesIn(bits_cases()), bits_case_name);

}  // namespace
}  // namespace memslot::testing_support
