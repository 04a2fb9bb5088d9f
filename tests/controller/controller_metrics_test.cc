// GET /metrics of the controller: figures grow by what was done, and are of after the question.
#include <gmock/gmock.h>

#include "shared/memory/learn_config.h"
#include "tests/controller/link_peers.h"
#include "tests/support/small_payload.h"

namespace memslot {
namespace {

using testing::HasSubstr;

wire::OpenSession session(const std::string& policy) {
  wire::OpenSession open;
  open.session = 5;
  open.incarnation = 100;
  open.model = slot_signature().model;
  open.slots = generator_hello().slots;
  open.namespaces = {"default"};
  open.policy = policy;
  return open;
}

wire::Observation observation(std::uint64_t step, const std::string& active = "") {
  wire::Observation o;
  o.session = 5;
  o.step = step;
  if (!active.empty()) {
    const MemoryRef ref{.ns = "default", .id = active, .version = 1};
    o.active = {{.slot = 0, .ref = ref, .reason = wire::ActiveReason::kDirective}};
  }
  return o;
}

struct ControllerMetricsTest : ServerTest {
  std::string text() { return server_->metrics_text(); }
  // Of the sample with this name and these labels, as they are written.
  static double value(const std::string& page, const std::string& sample) {
    const auto at = page.find("\n" + sample + " ");
    if (at == std::string::npos) {
      ADD_FAILURE() << "no sample " << sample;
      return -1;
    }
    return std::stod(page.substr(at + sample.size() + 2));
  }
  double value(const std::string& sample) { return value(text(), sample); }
};

TEST_F(ControllerMetricsTest, StepsAndDecisionsAreCounted) {
  publish("a");
  start();
  TestPeer& peer = generator();
  peer.send(session("fixed:a"));
  ASSERT_TRUE(peer.expect<wire::OpenSessionReply>());
  peer.send(observation(0));
  ASSERT_TRUE(peer.expect<wire::Directive>());
  for (const int step : {1, 2, 2}) {  // the last one again
    peer.send(observation(static_cast<std::uint64_t>(step), "a"));
    ASSERT_TRUE(peer.expect<wire::Directive>());
  }
  const std::string page = text();
  EXPECT_EQ(value(page, "memslot_controller_steps_total"), 3);
  EXPECT_EQ(value(page, "memslot_controller_steps_repeated_total"), 1);
  EXPECT_EQ(value(page, "memslot_controller_decisions_total{action=\"use\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_decisions_total{action=\"keep\"}"), 2);
  EXPECT_EQ(value(page, "memslot_controller_uses_total{payload=\"sent\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_uses_total{payload=\"resident\"}"), 0);
  EXPECT_EQ(value(page, "memslot_controller_payload_cache_lookups_total{result=\"miss\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_handler_seconds_count{message=\"observation\"}"), 4);
  EXPECT_EQ(value(page, "memslot_controller_handler_seconds_count{message=\"open_session\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_sessions"), 1);
  EXPECT_EQ(value(page, "memslot_controller_peers{role=\"generator\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_index_memories"), 1);
}

TEST_F(ControllerMetricsTest, AResidentMemoryIsUsedWithoutItsPayload) {
  publish("a");
  start();
  TestPeer& peer = generator();
  peer.send(session("fixed:a"));
  ASSERT_TRUE(peer.expect<wire::OpenSessionReply>());
  wire::Observation o = observation(0);
  o.residents = {.epoch = 2,
                 .base_epoch = 0,
                 .added = {{0, {.ns = "default", .id = "a", .version = 1}}},
                 .removed = {}};
  peer.send(o);
  ASSERT_TRUE(peer.expect<wire::Directive>());
  EXPECT_EQ(value("memslot_controller_uses_total{payload=\"resident\"}"), 1);
  EXPECT_EQ(value("memslot_controller_uses_total{payload=\"sent\"}"), 0);
}

TEST_F(ControllerMetricsTest, WhatIsRefusedIsCountedByWhy) {
  start();
  TestPeer stranger(*network_, "x", generator_hello(7));
  stranger.send(observation(0));
  stranger.expect_error(ErrorCode::kUnavailable);
  TestPeer& peer = client();
  peer.send_raw({share_bytes(std::vector<std::byte>(64, std::byte{7}))});
  peer.expect_error(ErrorCode::kCorruption);
  peer.send(observation(0));  // a generator's message
  peer.expect_error(ErrorCode::kPermission);
  const std::string page = text();
  for (const std::string why : {"stranger", "malformed", "permission"}) {
    EXPECT_EQ(value(page, "memslot_controller_messages_refused_total{reason=\"" + why + "\"}"), 1);
  }
}

TEST_F(ControllerMetricsTest, JobsAreCountedByState) {
  start();
  generator(100, /*workers=*/1);
  TestPeer& peer = client();
  const nlohmann::json arguments = {{"text", "words"},
                                    {"source", "s"},
                                    {"config", nlohmann::json::parse(to_json(LearnConfig{}))},
                                    {"watch", false}};
  peer.send(wire::SubmitTask{"learn", arguments.dump()});
  const auto submitted = peer.event();
  ASSERT_FALSE(submitted.contains("error")) << submitted.dump();
  const std::string page = text();
  EXPECT_EQ(value(page, "memslot_controller_jobs{state=\"leased\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_jobs{state=\"queued\"}"), 0);
  EXPECT_EQ(value(page, "memslot_controller_jobs_entered_total{state=\"queued\"}"), 1);
  EXPECT_EQ(value(page, "memslot_controller_jobs_entered_total{state=\"leased\"}"), 1);
}

TEST_F(ControllerMetricsTest, ALostCompareAndSetIsAWriteConflict) {
  start();
  publish("a");
  publish("a", 2.0f);
  EXPECT_EQ(value("memslot_controller_bank_published_total"), 2);
  EXPECT_EQ(value("memslot_controller_bank_write_conflicts_total"), 0);
  const MemoryPayload payload = small_payload(3.0f);
  MemoryDraft draft;
  draft.meta.ref = {.ns = "default", .id = "a", .version = 0};
  draft.meta.token = new_token(clock_);
  draft.meta.signature = payload.signature();
  draft.meta.dtype = payload.dtype();
  draft.meta.payload_bytes = payload.bytes().size();
  draft.meta.sha256 = sha256(payload.bytes());
  draft.payload = payload.bytes();
  draft.expected = "";           // as if there were none
  for (int i = 0; i < 2; ++i) {  // the second time it is found: no conflict of its own
    EXPECT_TRUE(bank_.publish_memory(draft, kFarDeadline).value().conflict());
    EXPECT_EQ(value("memslot_controller_bank_write_conflicts_total"), 1);
  }
  EXPECT_EQ(
      bank_.rollback(draft.meta.ref, 1, "another", new_token(clock_), kFarDeadline).error().code,
      ErrorCode::kConflict);
  EXPECT_EQ(value("memslot_controller_bank_write_conflicts_total"), 2);
  EXPECT_EQ(value("memslot_controller_bank_published_total"), 2);
}

TEST_F(ControllerMetricsTest, ManyMayAskAtOnce) {
  start();
  std::atomic<int> whole = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 4; ++n) whole += text().ends_with("\n") ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(whole, 32);
}

TEST_F(ControllerMetricsTest, ALinkThatStandsStillShowsByTheAgeOfItsFigures) {
  start();
  EXPECT_LT(value("memslot_controller_figures_age_seconds"), 1);
  server_->stop();
  thread_.join();
  EXPECT_GT(value("memslot_controller_figures_age_seconds"), 0.9);  // text() waited for so long
}

TEST_F(ControllerMetricsTest, WhatHasNoValueYetIsNotANumber) {
  start();
  EXPECT_THAT(text(), HasSubstr("\nmemslot_controller_learner_regret_nats Nan\n"));
}

}  // namespace
}  // namespace memslot
