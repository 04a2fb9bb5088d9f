// Counterfactual scoring against sessions that have the memory pinned from the first token.
#include "generator/gains/gain_scorer.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;

struct Case {
  const char* name;
  const char* folder;
  std::vector<int> slots;
  DType weights, payload;
};

std::string case_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

std::vector<std::int32_t> text(int count, int seed = 3) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((seed + 37 * i + i * i) % 256);
  return out;
}

class GainScorerTest : public testing::TestWithParam<Case> {
 protected:
  using Memory = std::shared_ptr<const LoadedMemory>;

  void SetUp() override {
    const auto probe = must(open_backend(BackendOptions{"cpu", 1}));
    if (GetParam().weights == DType::kBF16 && !probe->info().bf16) {
      GTEST_SKIP() << "SKIPPED: no bf16 on this machine";
    }
    tiny_.emplace(TinyModel::open(fixture_dir() + "/" + GetParam().folder, GetParam().slots,
                                  GetParam().weights, /*threads=*/1));
    scratch_.emplace(must(LogitsScratch::make(gpt())));
  }
  Gpt& gpt() { return *tiny_->gpt; }
  bool gated() { return gpt().config().mlp_form == MlpForm::kSwiGlu; }
  SlotSignature signature(MemoryKind kind) {
    return expected_signature(gpt(), Sha256{}, 0, kind, Sha256{});
  }
  Memory load(const MemoryPayload& payload, const std::string& id) {
    return must(LoadedMemory::load(payload, {"default", id, 1}, sha256(payload.bytes()),
                                   payload.signature(), nullptr, gpt()));
  }
  Memory mlp(unsigned seed) {
    std::mt19937 rng(seed);
    const SlotSignature s = signature(MemoryKind::kMlp);
    const std::int64_t n = std::int64_t{s.d_model} * s.d_ff;
    MlpValues values;
    if (gated()) values.gate = random_values(n, 0.12f, rng);
    values.up = random_values(n, 0.12f, rng);
    values.down = random_values(n, 0.12f, rng);
    if (!gated()) {
      values.up_bias = random_values(s.d_ff, 0.12f, rng);
      values.down_bias = random_values(s.d_model, 0.12f, rng);
    }
    return load(must(make_mlp_payload(s, GetParam().payload, values)), "mlp");
  }
  Memory lora(unsigned seed) {
    std::mt19937 rng(seed);
    const SlotSignature s = signature(MemoryKind::kLora);
    LoraValues values;
    values.rank = 4;
    values.alpha = 4;
    const auto map = [&](std::int64_t in, std::int64_t out) {
      return LoraValues::Map{random_values(4 * in, 0.2f, rng), random_values(4 * out, 0.2f, rng)};
    };
    if (gated()) values.gate = map(s.d_model, s.d_ff);
    values.up = map(s.d_model, s.d_ff);
    values.down = map(s.d_ff, s.d_model);
    return load(must(make_lora_payload(s, GetParam().payload, values)), "lora");
  }
  // What `score` gives with the memory pinned.
  StepOutput scored(const std::vector<std::int32_t>& ids, const Memory& memory) {
    auto session = must(Session::make(gpt(), *scratch_, {}));
    must(session->add_tokens(ids));
    const SlotChange change{0, memory};
    must(session->activate({&change, 1}));
    return must(session->read(static_cast<int>(ids.size())));
  }
  GainScorer read(std::vector<std::int32_t> ids, std::vector<std::int32_t> steps) {
    return must(GainScorer::read(gpt(), 0, std::move(ids), std::move(steps), slices_));
  }
  std::vector<GainFigures> score(GainScorer& scorer, const std::vector<Memory>& memories) {
    return must(scorer.score(memories, slices_));
  }

  std::optional<TinyModel> tiny_;
  std::optional<LogitsScratch> scratch_;
  SystemClock clock_;
  ComputeGate gate_{clock_};
  GateSlices slices_{gate_};
};

TEST_P(GainScorerTest, EveryTokenIsThatOfAScoredTextWithTheMemoryPinned) {
  const auto ids = text(61);
  GainScorer scorer = read(ids, {16, 16, 1, 20, 7});
  const std::vector<Memory> memories = {nullptr, lora(1), mlp(2), lora(3)};
  const auto figures = score(scorer, memories);
  for (std::size_t m = 0; m < memories.size(); ++m) {
    const StepOutput want = scored(ids, memories[m]);
    ASSERT_EQ(figures[m].token_nll.size(), want.tokens.size());
    for (std::size_t i = 0; i < want.tokens.size(); ++i) {
      // The sums over the vocabulary are taken in another order; all before is the same bits.
      EXPECT_NEAR(figures[m].token_nll[i], -want.tokens[i].log_prob, 4e-6) << m << " " << i;
    }
  }
  EXPECT_GT(std::abs(figures[1].surprise[0] - figures[0].surprise[0]), 1e-3);
}

TEST_P(GainScorerTest, StepsHaveTheMeansOfASessionThatReadsThemOneByOne) {
  const auto ids = text(49);
  const Memory memory = lora(7);
  GainScorer scorer = read(ids, {16, 16, 16});
  const auto figures = score(scorer, {memory, nullptr});
  auto session = must(Session::make(gpt(), *scratch_, {}));
  must(session->add_tokens(ids));
  const SlotChange change{0, memory};
  must(session->activate({&change, 1}));
  for (std::size_t t = 0; t < 3; ++t) {
    const StepOutput step = must(session->read(16));
    EXPECT_NEAR(figures[0].surprise[t], step.summary.surprise, 1e-5);
    EXPECT_NEAR(figures[0].entropy[t], step.summary.entropy, 1e-5);
    EXPECT_GT(figures[0].activation[t], 0);
    EXPECT_EQ(figures[1].activation[t], 0);
    const auto& mean = step.summary.chunks.back().mean;
    ASSERT_EQ(step.summary.chunks.back().tokens, t == 0 ? 15u : 16u);
    for (std::size_t i = 0; i < mean.size(); ++i) {
      EXPECT_NEAR(scorer.hidden()[t * mean.size() + i], mean[i], 1e-6);
    }
  }
}

TEST_P(GainScorerTest, ACandidateHasTheSameBitsAloneAndInABatch) {
  if (!gpt().backend().info().row_invariant) GTEST_SKIP() << "SKIPPED: not row-invariant";
  const std::vector<Memory> memories = {mlp(1), nullptr, lora(2), lora(3), mlp(4)};
  GainScorer scorer = read(text(62), {54, 7});
  const auto together = score(scorer, memories);
  for (std::size_t m = 0; m < memories.size(); ++m) {
    const auto alone = score(scorer, {memories[m]});
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
    };
    EXPECT_TRUE(same(alone[0].token_nll, together[m].token_nll)) << m;
    EXPECT_TRUE(same(alone[0].entropy, together[m].entropy)) << m;
    EXPECT_TRUE(same(alone[0].activation, together[m].activation)) << m;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, GainScorerTest,
    testing::Values(
        Case{"LlamaF32", "llama_tiny_theta10000_hf", {2}, DType::kF32, DType::kF32},
        Case{"LlamaF32OfTwoSlots", "llama_tiny_theta10000_hf", {1, 2}, DType::kF32, DType::kBF16},
        Case{"LlamaTopSlot", "llama_tiny_theta10000_hf", {3}, DType::kF32, DType::kF32},
        Case{"LlamaBf16", "llama_tiny_theta100000_hf", {1}, DType::kBF16, DType::kBF16},
        Case{"Gpt2F32", "gpt2_tiny_hf", {1}, DType::kF32, DType::kF32}),
    case_name);

struct GainScorerLimits : testing::Test {
  TinyEngine tiny{{2}};
  GateSlices slices{tiny.gate};
  Status read(std::vector<std::int32_t> ids, std::vector<std::int32_t> steps) {
    MEMSLOT_TRY(GainScorer::read(*tiny.tiny.gpt, 0, std::move(ids), std::move(steps), slices));
    return ok();
  }
  void expect_refused(const Status& status, const char* what) {
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find(what), std::string::npos) << status.error().message;
  }
};

TEST_F(GainScorerLimits, TextsAndStepsThatDoNotFitAreRefused) {
  expect_refused(read({5}, {1}), "at least 2 tokens");
  expect_refused(read(text(129), {128}), "at most 128 tokens (the context)");
  expect_refused(read(text(20), {}), "steps: expected at least one");
  expect_refused(read(text(20), {10, 0, 9}), "tokens of a step");
  expect_refused(read(text(20), {10, 8}), "expected 19 (all but the first), found 18");
  expect_refused(read({1, 256, 3}, {2}), "token id");
  expect_refused(read({1, 2, 256}, {2}), "token id");
  expect_refused(read({1, 2, -1}, {2}), "token id");
  EXPECT_TRUE(read(text(128), {127}).has_value());
}

TEST_F(GainScorerLimits, TheTwoShortestTextsAreScored) {
  GainScorer one = must(GainScorer::read(*tiny.tiny.gpt, 0, {7, 9}, {1}, slices));
  const auto figures =
      must(one.score(std::vector<std::shared_ptr<const LoadedMemory>>{nullptr}, slices));
  EXPECT_EQ(figures[0].surprise.size(), 1u);
  for (const float h : one.hidden()) EXPECT_EQ(h, 0);  // only the first token, which is dropped
  must(read({7, 9, 11}, {1, 1}));
}

TEST_F(GainScorerLimits, AMemoryThatOverflowsIsAnErrorThatNamesIt) {
  std::mt19937 rng(1);
  MlpValues values;
  const SlotSignature s = tiny.signature(0, MemoryKind::kMlp);
  const std::int64_t n = std::int64_t{s.d_model} * s.d_ff;
  values.gate = random_values(n, 1e18f, rng);
  values.up = random_values(n, 1e18f, rng);
  values.down = random_values(n, 1e18f, rng);
  const auto memory = tiny.load(stored("huge", must(make_mlp_payload(s, DType::kF32, values))));
  GainScorer scorer = must(GainScorer::read(*tiny.tiny.gpt, 0, text(9), {8}, slices));
  const auto result =
      scorer.score(std::vector<std::shared_ptr<const LoadedMemory>>{memory}, slices);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kCorruption);
  EXPECT_NE(result.error().message.find("default/huge@1"), std::string::npos);
}

TEST_F(GainScorerLimits, TheWorkspaceIsBoundedHoweverManyCandidates) {
  GainScorer scorer = must(GainScorer::read(*tiny.tiny.gpt, 0, text(33), {32}, slices));
  EXPECT_EQ(scorer.batch(), GainScorer::kBatchRows / 32);
  const std::vector<std::shared_ptr<const LoadedMemory>> all(
      static_cast<std::size_t>(scorer.batch()), tiny.load(tiny.lora("a")));
  const std::size_t before = scorer.bytes();
  must(scorer.score(all, slices));
  EXPECT_EQ(scorer.bytes(), before);
  // Logits of the batch would be 2048 * 256 * 4 bytes.
  EXPECT_LT(before, 64u * 2048 * 4 * 20);
}

}  // namespace
}  // namespace memslot
