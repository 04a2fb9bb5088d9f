// Learn jobs between a scripted controller and the learner: leases, results, failures.
#include "generator/runtime/learn_worker.h"

#include <gtest/gtest.h>

#include <cmath>  // abs

#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

const char* kText =
    "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice.";

struct LearnWorkerTest : testing::Test {
  TinyEngine tiny{{2}};
  std::unique_ptr<LearnWorker> worker;
  LearnTexts texts;

  void begin() {
    tiny.connect();
    worker = std::make_unique<LearnWorker>(
        *tiny.engine,
        std::make_unique<Learner>(*tiny.tiny.gpt, tiny.tiny.file, tiny.tokenizer, texts, tiny.gate),
        *tiny.outer);
    worker->start();
  }
  void TearDown() override {
    if (worker) worker->stop();
  }
  wire::AssignLearn job(const std::string& name, const std::string& config) {
    wire::AssignLearn out;
    out.job = name;
    out.lease = 1;
    out.ns = "default";
    out.source = "ferry";
    out.text = kText;
    out.config = config;
    out.target = {"default", "ferry", 0};
    return out;
  }
  // Outer parameters as the worker would make them, but with the slot gate open: a memory then
  // changes what the model says.
  void store_open_outer() {
    const ModelConfig& config = tiny.tiny.gpt->config();
    const DeltaShape shape{config.heads, config.head_dim, config.head_dim, false};
    const auto fresh =
        must(make_fresh_delta(tiny.signature(0, MemoryKind::kDelta), shape, DType::kF32, 3));
    DeltaOuterValues values = to_values(must(DeltaOuterView::parse(fresh.outer)));
    values.slot_gate = random_values(config.d_model, 2.0f, tiny.rng);
    for (float& w : values.o_proj) w *= 20;
    auto outer =
        stored("delta-l2-s1", must(make_delta_outer(fresh.outer.signature(), DType::kF32, values)));
    outer.version.ref.ns = "outer";
    tiny.controller.store(outer);
  }
  struct Scored {
    double nll_sum = 0;
    std::size_t tokens = 0, hits = 0, counted = 0;
    double nll() const { return nll_sum / static_cast<double>(tokens); }
    double recall() const { return static_cast<double>(hits) / static_cast<double>(counted); }
  };
  // As a session reads it, the memory from its stored state.
  Scored scored(const std::string& text, std::shared_ptr<const LoadedMemory> memory) {
    auto session = tiny.session();
    must(session->add_tokens(must(tiny.tokenizer.encode(text))));
    const SlotChange change{0, std::move(memory)};
    must(session->activate({&change, 1}));
    const StepOutput out = must(session->read(1000));
    Scored sum;
    for (std::size_t i = 0; i < out.tokens.size(); ++i) {
      ++sum.tokens;
      sum.nll_sum -= double{out.tokens[i].log_prob};
      if (i + 1 < 16) continue;
      ++sum.counted;
      if (out.tokens[i].is_argmax) ++sum.hits;
    }
    return sum;
  }
  // The one result, as a version and its payload.
  FakeController::Stored result() {
    for (const wire::Message& m : tiny.controller.heard()) {
      const auto* learned = std::get_if<wire::LearnResult>(&m.body);
      if (learned == nullptr) continue;
      FakeController::Stored out{learned->version, m.parts.at(0)};
      out.version.ref.version = 1;
      return out;
    }
    throw std::runtime_error("no result");
  }
  // Waits until the controller heard of a job that it runs, and not only waits.
  bool heard_running() {
    const auto end = std::chrono::steady_clock::now() + 10s;
    while (std::chrono::steady_clock::now() < end) {
      for (const auto& p : tiny.controller.heard_of<wire::LearnProgress>()) {
        if (p.phase != "queued") return true;
      }
      std::this_thread::sleep_for(2ms);
    }
    return false;
  }
};

TEST_F(LearnWorkerTest, SendsWhatWasLearnedUnderTheJobsToken) {
  begin();
  worker->assign(job("j1", R"({"kind": "lora", "rank": 4, "max_steps": 3})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const auto results = tiny.controller.heard_of<wire::LearnResult>();
  const MemoryVersion& v = results[0].version;
  EXPECT_EQ(v.token, "j1:1");
  EXPECT_EQ(v.ref, (MemoryRef{"default", "ferry", 0}));
  EXPECT_EQ(v.signature.kind, MemoryKind::kLora);
  EXPECT_EQ(v.source, "ferry");
  EXPECT_GT(v.keys, 0u);
  for (const wire::Message& m : tiny.controller.heard()) {
    if (!std::holds_alternative<wire::LearnResult>(m.body)) continue;
    ASSERT_EQ(m.parts.size(), 2u);
    EXPECT_EQ(sha256(*m.parts[0]), v.sha256);
    EXPECT_EQ(m.parts[1]->size(), v.keys * 64u * sizeof(float));
    FakeController::Stored memory{v, m.parts[0]};
    memory.version.ref.version = 1;
    tiny.load(memory);  // it fits the slot
  }
  EXPECT_FALSE(tiny.controller.heard_of<wire::LearnProgress>().empty());
}

TEST_F(LearnWorkerTest, SendsAResultAgainUntilItIsAcknowledged) {
  std::atomic<int> seen{0};
  tiny.controller.on_learn =
      [&](const wire::LearnResult& r) -> std::optional<FakeController::Answer> {
    if (++seen < 3) return std::nullopt;
    return FakeController::Answer{wire::LearnAck{r.job, r.lease, true, ""}, {}};
  };
  begin();
  worker->assign(job("j1", R"({"kind": "lora", "rank": 2, "max_steps": 1})"));
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (worker->counters().learned == 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(worker->counters().learned, 1u);
  for (const auto& r : tiny.controller.heard_of<wire::LearnResult>())
    EXPECT_EQ(r.version.token, "j1:1");
}

TEST_F(LearnWorkerTest, AResultThatIsNotAnsweredYetKeepsItsLeaseAndIsNotLearnedAgain) {
  std::atomic<bool> away{true};
  tiny.controller.on_learn =
      [&](const wire::LearnResult& r) -> std::optional<FakeController::Answer> {
    if (away) return FakeController::Answer{wire::ErrorReply{ErrorCode::kOverloaded, "later"}, {}};
    return FakeController::Answer{wire::LearnAck{r.job, r.lease, true, ""}, {}};
  };
  begin();
  const auto once = job("j1", R"({"kind": "lora", "rank": 2, "max_steps": 1})");
  worker->assign(once);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  worker->assign(once);
  EXPECT_EQ(worker->counters().queued, 0u);
  const auto delivering = [&] {
    std::size_t count = 0;
    for (const auto& p : tiny.controller.heard_of<wire::LearnProgress>()) {
      if (p.job == "j1" && p.lease == 1 && p.phase == "delivering") ++count;
    }
    return count;
  };
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (delivering() < 2 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(5ms);
  EXPECT_GE(delivering(), 2u);
  away = false;
  while (worker->counters().learned == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(5ms);
  EXPECT_EQ(worker->counters().learned, 1u);
}

TEST_F(LearnWorkerTest, ANewerLeaseOfTheSameJobIsTakenOver) {
  begin();
  auto first = job("j1", R"({"kind": "mlp", "max_steps": 60, "target_recall": 1})");
  worker->assign(first);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnProgress>(1, 10s));
  first.lease = 2;
  worker->assign(first);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 60s));
  const auto results = tiny.controller.heard_of<wire::LearnResult>();
  EXPECT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].lease, 2u);
  EXPECT_EQ(results[0].version.token, "j1:2");
}

TEST_F(LearnWorkerTest, BadJobsFailWithTheirCodes) {
  begin();
  worker->assign(job("unknown-option", R"({"kinds": "mlp"})"));
  auto empty = job("empty", "{}");
  empty.text.clear();
  worker->assign(empty);
  auto huge = job("long", "{}");
  huge.text = std::string(4000, 'x');
  worker->assign(huge);
  worker->assign(job("layer", R"({"kind": "delta", "layer": 1})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnFailed>(4, 20s));
  for (const auto& failed : tiny.controller.heard_of<wire::LearnFailed>()) {
    EXPECT_EQ(failed.code, ErrorCode::kInvalidArgument) << failed.job << ": " << failed.message;
  }
}

TEST_F(LearnWorkerTest, ACancelledJobEnds) {
  begin();
  worker->assign(job("j1", R"({"kind": "mlp", "max_steps": 10000, "lr": 1e-9})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnProgress>(1, 10s));
  worker->cancel({"j1", 1});
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnFailed>(1, 30s));
  EXPECT_EQ(tiny.controller.heard_of<wire::LearnFailed>()[0].code, ErrorCode::kCancelled);
}

TEST_F(LearnWorkerTest, ADeltaJobReadsTheTextThroughTheSlot) {
  begin();
  worker->assign(job("j1", R"({"kind": "delta"})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const auto v = tiny.controller.heard_of<wire::LearnResult>()[0].version;
  EXPECT_EQ(v.signature.kind, MemoryKind::kDelta);
  EXPECT_FALSE(v.signature.outer.is_zero());
  EXPECT_EQ(v.stats.tokens, std::string(kText).size());
  // The outer parameters were published on the way.
  const auto outer = tiny.controller.heard_of<wire::WriteBack>();
  ASSERT_EQ(outer.size(), 1u);
  EXPECT_EQ(outer[0].version.ref, (MemoryRef{"outer", "delta-l2-s1", 0}));
  EXPECT_EQ(outer[0].expected, "");
  EXPECT_EQ(outer[0].version.sha256, v.signature.outer);
}

TEST_F(LearnWorkerTest, ADeltaJobMeasuresTheMemoryAsASessionWouldRunIt) {
  texts.control = {"Soup is made of what there is.", "The gate was painted green in the spring."};
  store_open_outer();
  begin();
  worker->assign(job("j1", R"({"kind": "delta"})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const auto memory = result();
  const LearnStats& s = memory.version.stats;
  EXPECT_EQ(memory.version.position, std::string(kText).size());
  const auto loaded = tiny.load(memory);
  const Scored before = scored(kText, nullptr), after = scored(kText, loaded);
  EXPECT_NEAR(s.nll_before, before.nll(), 1e-6);
  EXPECT_NEAR(s.nll_after, after.nll(), 1e-6);
  EXPECT_GT(std::abs(s.nll_after - s.nll_before), 1e-3) << "the gate is open";
  EXPECT_EQ(s.recall_before, before.recall());
  EXPECT_EQ(s.recall, after.recall());
  Scored control_before, control_after;
  for (const std::string& text : texts.control) {
    for (auto* sum : {&control_before, &control_after}) {
      const Scored one = scored(text, sum == &control_after ? loaded : nullptr);
      sum->nll_sum += one.nll_sum;
      sum->tokens += one.tokens;
    }
  }
  ASSERT_TRUE(s.locality.has_value());
  EXPECT_NEAR(*s.locality, (control_after.nll() - control_before.nll()) / control_before.nll(),
              1e-6);
  EXPECT_GT(s.wise_min_activation, 0);
  EXPECT_GT(s.wall_seconds, 0);
  EXPECT_EQ(s.config, R"({"kind":"delta","layer":2})");
  EXPECT_FALSE(s.steps.has_value()) << "nothing is optimized";
  EXPECT_FALSE(s.segments.has_value()) << "the source is read whole";
}

TEST_F(LearnWorkerTest, AFreshDeltaMemoryLeavesTheModelAsItWasAndItsFiguresSaySo) {
  texts.control = {"Soup is made of what there is."};
  begin();
  worker->assign(job("j1", R"({"kind": "delta"})"));
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const LearnStats s = result().version.stats;
  EXPECT_EQ(s.nll_after, s.nll_before);
  EXPECT_GT(s.nll_before, 0);
  EXPECT_EQ(s.locality, 0.0);
  EXPECT_EQ(s.wise_min_activation, 0.0);
}

TEST_F(LearnWorkerTest, WhatCannotBeMeasuredIsAbsentAndNotZero) {
  begin();
  auto brief = job("j1", R"({"kind": "delta"})");
  brief.text = "sixteen tokens..";
  worker->assign(brief);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const LearnStats s = result().version.stats;
  EXPECT_FALSE(s.recall.has_value());
  EXPECT_FALSE(s.recall_before.has_value());
  EXPECT_FALSE(s.locality.has_value());
  EXPECT_GT(s.nll_after, 0);
}

TEST_F(LearnWorkerTest, ACancelOfAnOlderLeaseIsIgnored) {
  begin();
  auto first = job("j1", R"({"kind": "mlp", "max_steps": 20, "target_recall": 1})");
  first.lease = 2;
  auto waiting = job("j2", R"({"kind": "lora", "rank": 2, "max_steps": 1})");
  waiting.lease = 5;
  worker->assign(first);
  worker->assign(waiting);
  worker->cancel({"j1", 1});
  worker->cancel({"j2", 4});
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(2, 60s));
  EXPECT_TRUE(tiny.controller.heard_of<wire::LearnFailed>().empty());
}

TEST_F(LearnWorkerTest, ANewerLeaseFromAnotherHeadIsLearnedAnew) {
  tiny.controller.store(tiny.mlp("ferry"));
  begin();
  worker->assign(job("j1", R"({"kind": "mlp", "max_steps": 10000, "lr": 1e-9})"));
  ASSERT_TRUE(heard_running());
  auto moved = job("j1", R"({"kind": "mlp", "max_steps": 1})");
  moved.lease = 2;
  moved.expected = "token-ferry-1";
  worker->assign(moved);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 60s));
  const auto results = tiny.controller.heard_of<wire::LearnResult>();
  EXPECT_EQ(results[0].version.token, "j1:2");
  EXPECT_EQ(results[0].version.parent, "token-ferry-1");
  const auto failed = tiny.controller.heard_of<wire::LearnFailed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].lease, 1u);
  EXPECT_EQ(failed[0].code, ErrorCode::kCancelled);
}

TEST_F(LearnWorkerTest, ANewerLeaseOfAWaitingJobBringsItsHead) {
  tiny.controller.store(tiny.mlp("ferry"));
  begin();
  worker->assign(job("first", R"({"kind": "mlp", "max_steps": 10000, "lr": 1e-9})"));
  ASSERT_TRUE(heard_running());
  auto waiting = job("j1", R"({"kind": "mlp", "max_steps": 1})");
  worker->assign(waiting);
  waiting.lease = 2;
  waiting.expected = "token-ferry-1";
  worker->assign(waiting);
  worker->cancel({"first", 1});
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 60s));
  const auto results = tiny.controller.heard_of<wire::LearnResult>();
  EXPECT_EQ(results[0].version.token, "j1:2");
  EXPECT_EQ(results[0].version.parent, "token-ferry-1");
}

TEST_F(LearnWorkerTest, AHeadOfAnotherModelIsBegunAnew) {
  tiny.controller.on_fetch = [](const wire::FetchMemory&) {
    return FakeController::Answer{wire::ErrorReply{ErrorCode::kMismatch, "another model"}, {}};
  };
  begin();
  auto again = job("j1", R"({"kind": "lora", "rank": 2, "max_steps": 1})");
  again.expected = "token-ferry-1";
  worker->assign(again);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  EXPECT_EQ(tiny.controller.heard_of<wire::LearnResult>()[0].version.parent, "token-ferry-1");
}

TEST_F(LearnWorkerTest, AHeadOfTheShapeThatIsAskedForGoesOn) {
  const auto head = tiny.lora("ferry");  // rank 4, alpha 4
  tiny.controller.store(head);
  begin();
  auto again = job("j1", R"({"kind": "lora", "rank": 4, "alpha": 4, "max_steps": 1, "lr": 1e-7})");
  again.expected = "token-ferry-1";
  worker->assign(again);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnResult>(1, 20s));
  const LoraValues before =
      to_values(must(LoraView::parse(must(MemoryPayload::parse(*head.payload)))));
  const LoraValues after =
      to_values(must(LoraView::parse(must(MemoryPayload::parse(*result().payload)))));
  EXPECT_NEAR(after.down.b.at(3), before.down.b.at(3), 0.01 * std::abs(before.down.b.at(3)));
}

TEST_F(LearnWorkerTest, AHeadOfAnotherRankAlphaOrLayerIsBegunAnew) {
  const auto learned = [&](const std::string& name, const std::string& config) {
    auto again = job(name, config);
    again.expected = "token-ferry-1";
    const std::size_t before = tiny.controller.heard_of<wire::LearnResult>().size();
    worker->assign(again);
    EXPECT_TRUE(tiny.controller.wait_for<wire::LearnResult>(before + 1, 20s));
    SharedBytes payload;
    for (const wire::Message& m : tiny.controller.heard()) {
      if (std::holds_alternative<wire::LearnResult>(m.body)) payload = m.parts.at(0);
    }
    return must(MemoryPayload::parse(*payload));
  };
  tiny.controller.store(tiny.lora("ferry"));  // rank 4, alpha 4
  begin();
  const auto rank = learned("rank", R"({"kind": "lora", "rank": 2, "alpha": 4, "max_steps": 1})");
  EXPECT_EQ(must(LoraView::parse(rank)).rank, 2);
  const auto alpha = learned("alpha", R"({"kind": "lora", "rank": 4, "alpha": 8, "max_steps": 1})");
  EXPECT_EQ(must(LoraView::parse(alpha)).alpha, 8);
  SlotSignature elsewhere = tiny.signature(0, MemoryKind::kLora);
  elsewhere.layer = 1;
  tiny.controller.store(stored("ferry", random_lora(elsewhere, tiny.rng)));
  const auto layer = learned("layer", R"({"kind": "lora", "rank": 4, "alpha": 4, "max_steps": 1})");
  EXPECT_EQ(layer.signature().layer, 2);
}

TEST_F(LearnWorkerTest, AHeadThatCannotBeFetchedFailsTheJob) {
  tiny.controller.on_fetch = [](const wire::FetchMemory&) {
    return FakeController::Answer{wire::ErrorReply{ErrorCode::kCorruption, "its digest"}, {}};
  };
  begin();
  auto again = job("j1", R"({"kind": "lora", "rank": 2, "max_steps": 1})");
  again.expected = "token-ferry-1";
  worker->assign(again);
  ASSERT_TRUE(tiny.controller.wait_for<wire::LearnFailed>(1, 20s));
  EXPECT_EQ(tiny.controller.heard_of<wire::LearnFailed>()[0].code, ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot
