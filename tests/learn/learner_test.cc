#include "generator/learn/learner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "generator/slot/slot.h"
#include "shared/base/clock.h"
#include "shared/base/digest.h"
#include "shared/memory/layout/lora.h"
#include "shared/memory/layout/mlp.h"
#include "tests/learn/tiny_model.h"

namespace memslot {
namespace {

using namespace testing_support;

constexpr const char* kText = "zq 1x? fen kow.. lub 99 rya";  // 27 bytes, as many tokens

class Learners : public ::testing::TestWithParam<const char*> {
 protected:
  Learners()
      : model_(TinyModel::open(fixtures_matching(std::string(GetParam()) + "_tiny*_hf").at(0),
                               {1, 2})),
        tokenizer_(byte_tokenizer()),
        gate_(clock_),
        learner_(
            *model_.gpt, model_.file, tokenizer_,
            LearnTexts{{"an anchor of some words to keep"}, {"control words, never trained on"}},
            gate_) {
    request_.text = kText;
    request_.config.max_steps = 30;
    request_.config.target_recall = 1;
    request_.config.lr = 0.01f;
    request_.config.anchor = 0.001f;
    request_.config.window_words = 4;
    request_.config.stride_words = 2;
    request_.config.dtype = DType::kF32;
    request_.model_digest.bytes[3] = 7;
  }
  Result<LearnOutcome> learn() { return learner_.learn(request_, nullptr); }

  TinyModel model_;
  Tokenizer tokenizer_;
  SystemClock clock_;
  ComputeGate gate_;
  Learner learner_;
  LearnRequest request_;
};

TEST_P(Learners, MemorizeATextWithEitherKindAndLayout) {
  for (const MemoryKind kind : {MemoryKind::kMlp, MemoryKind::kLora}) {
    for (const SegmentLayout layout : {SegmentLayout::kCumulative, SegmentLayout::kOverlap}) {
      request_.config.kind = kind;
      request_.config.segments = layout;
      request_.config.rank = 4;
      request_.config.alpha = 8;
      request_.config.alone_share = layout == SegmentLayout::kCumulative ? 0.3f : 1.0f;
      const auto outcome = learn();
      ASSERT_TRUE(outcome) << outcome.error().message;
      const LearnStats& s = outcome.value().stats;
      SCOPED_TRACE(s.config);
      // Windows read alone say less about the whole text, and this model has learned no language.
      const bool whole = layout == SegmentLayout::kCumulative;
      EXPECT_LT(s.nll_after, (whole ? 0.5 : 0.8) * s.nll_before);
      if (whole) {
        EXPECT_GT(s.recall.value(), s.recall_before.value() + 0.2);
      }
      EXPECT_EQ(s.tokens, 27u);
      EXPECT_EQ(outcome.value().keys.rows(), s.segments);
      EXPECT_EQ(outcome.value().keys.dim, 64u);
      EXPECT_GT(s.wise_min_activation, 0);
      EXPECT_NE(s.locality.value(), 0);
      EXPECT_EQ(outcome.value().payload.kind(), kind);
    }
  }
}

TEST_P(Learners, TheSamePlaceAndSeedGiveTheSameBytes) {
  request_.config.max_steps = 5;
  const Sha256 first = sha256(must(learn()).payload.bytes());
  EXPECT_EQ(sha256(must(learn()).payload.bytes()), first);
  learner_.release_workspace();
  EXPECT_EQ(sha256(must(learn()).payload.bytes()), first) << "with a new workspace";
}

TEST_P(Learners, TheLearnedMemoryGivesASessionTheMeasuredLoss) {
  const LearnOutcome outcome = must(learn());
  SessionSlot slot(*model_.gpt, 0);
  slot.activate(must(LoadedMemory::load(
      outcome.payload, MemoryRef{}, sha256(outcome.payload.bytes()),
      expected_signature(*model_.gpt, request_.model_digest, 0, MemoryKind::kMlp), nullptr,
      *model_.gpt)));
  const std::vector<std::int32_t> tokens = must(tokenizer_.encode(kText));
  const SlotForward forward = [&](const SlotCall& call) {
    if (call.slot == 0) return slot.forward(call);
    model_.gpt->mlp(model_.gpt->layer(2).mlp, call.x, call.y);
  };
  KvCache kv = must(model_.gpt->make_kv(64));
  std::vector<float> hidden(27 * 64), logits(27 * 256), nll(27);
  Sequence sequence{tokens, &kv, &forward, {"a", ""}};
  must(model_.gpt->forward({&sequence, 1}, {hidden.data(), DType::kF32, 27, 64, 64}, false));
  model_.gpt->logits({hidden.data(), DType::kF32, 27, 64, 64},
                     {logits.data(), DType::kF32, 27, 256, 256});
  std::vector<std::int32_t> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(-1);
  model_.backend->token_loss({logits.data(), DType::kF32, 27, 256, 256}, targets, nll.data(),
                             nullptr, nullptr);
  double mean = 0;
  for (const float v : nll) mean += double{v} / 26;
  EXPECT_NEAR(mean, outcome.stats.nll_after, 1e-5);
}

TEST_P(Learners, GoOnFromAMemoryThatIsGiven) {
  request_.config.max_steps = 10;
  const LearnOutcome first = must(learn());
  request_.start = &first.payload;
  const LearnOutcome second = must(learn());
  EXPECT_LT(second.stats.nll_after, first.stats.nll_after);
  request_.config.kind = MemoryKind::kLora;
  EXPECT_EQ(learn().error().code, ErrorCode::kMismatch) << "an mlp is no start for a lora";
}

TEST_P(Learners, StopAtTheTarget) {
  request_.config.max_steps = 200;
  request_.config.target_recall = 0.5f;
  const LearnOutcome outcome = must(learn());
  EXPECT_LT(outcome.stats.steps, 200u);
  EXPECT_GE(outcome.stats.recall, 0.5);
}

TEST_P(Learners, ReportPhasesAndStopWhenTold) {
  std::vector<std::string> phases;
  const auto outcome = learner_.learn(request_, [&](const LearnProgressReport& r) {
    if (phases.empty() || phases.back() != r.phase) phases.emplace_back(r.phase);
    return r.step < 3;
  });
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(phases, (std::vector<std::string>{"packing weights", "reading anchor texts",
                                              "reading control texts", "reading", "measuring base",
                                              "training"}));
}

TEST_P(Learners, RefuseTextsThatCannotBeLearned) {
  const auto code = [&](const std::string& text) {
    request_.text = text;
    const auto outcome = learn();
    return outcome.has_value() ? ErrorCode::kInternal : outcome.error().code;
  };
  EXPECT_EQ(code(""), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("only sixteen tok"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("not \xff utf-8 but long enough"), ErrorCode::kInvalidArgument);
  request_.text = std::string(static_cast<std::size_t>(model_.file.config().context) + 1, 'x');
  const auto outcome = learn();
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message.find(std::to_string(model_.file.config().context)),
            std::string::npos)
      << outcome.error().message;
  EXPECT_EQ(learner_.workspace_bytes(), 0u) << "other texts are read only for what can be learned";
}

TEST_P(Learners, RefuseLayersRanksAndKindsThatAreNotThere) {
  request_.config.layer = 3;
  EXPECT_EQ(learn().error().code, ErrorCode::kInvalidArgument);
  request_.config.layer = 2;
  EXPECT_EQ(must(learn()).payload.signature().layer, 2);
  request_.config.kind = MemoryKind::kLora;
  request_.config.rank = 100;
  EXPECT_EQ(learn().error().code, ErrorCode::kInvalidArgument);
  request_.config.kind = MemoryKind::kDelta;
  EXPECT_EQ(learn().error().code, ErrorCode::kNotSupported);
}

TEST_P(Learners, LeaveBaseAsItWas) {
  const Sha256 before = model_.gpt->attest().value();
  must(learn());
  EXPECT_EQ(model_.gpt->attest().value(), before);
}

TEST_P(Learners, CountTheirWorkspaceAndGiveItBack) {
  must(learn());
  EXPECT_GT(learner_.workspace_bytes(), 100'000u);
  learner_.release_workspace();
  EXPECT_EQ(learner_.workspace_bytes(), 0u);
}

TEST_P(Learners, StrongAnchorsKeepTheSlotNearBase) {
  request_.config.anchor = 0;
  const double free = must(learn()).stats.wise_min_activation;
  request_.config.anchor = 10;
  EXPECT_LT(must(learn()).stats.wise_min_activation, free);
}

INSTANTIATE_TEST_SUITE_P(BothFamilies, Learners, ::testing::Values("llama", "gpt2"));

}  // namespace
}  // namespace memslot
