#include "controller/jobs/job_queue.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "storage/garbage.h"
#include "tests/controller/memories.h"
#include "tests/support/deep_json.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

using Call = FaultyStore::Call;

const JobOptions kOptions = {.lease = std::chrono::seconds(30),
                             .max_failed = 3,
                             .max_lost = 4,
                             .retry_pause = std::chrono::milliseconds(500),
                             .max_waiting = 5,
                             .keep_finished = 3};

// One life of a controller over a store that outlives it.
struct Life {
  Life(BankStore& store, const Clock& clock, JobOptions options = kOptions)
      : documents(store, clock), bank(store, clock), jobs(documents, bank, clock, options) {}
  DocumentBank documents;
  MemoryBank bank;
  JobQueue jobs;
};

JobDraft draft(const std::string& source = "skerrow") {
  JobDraft d;
  d.source = source;
  d.kind = "lora";
  d.text = "The light at Skerrow was lit.";
  d.config = R"({"kind":"lora"})";
  return d;
}

wire::LearnResult result_of(const wire::AssignLearn& lease, const MemoryPayload& payload) {
  wire::LearnResult r;
  r.job = lease.job;
  r.lease = lease.lease;
  r.version.ref = lease.target;
  r.version.signature = payload.signature();
  r.version.dtype = payload.dtype();
  r.version.payload_bytes = payload.bytes().size();
  r.version.sha256 = sha256(payload.bytes());
  r.version.stats.recall = 0.97;
  return r;
}

class JobQueueTest : public testing::Test {
 protected:
  JobQueueTest() { clock_.advance(std::chrono::hours(1)); }
  JobQueue& jobs() { return life_->jobs; }
  MemoryBank& bank() { return life_->bank; }
  void restart() {
    life_.emplace(store_, clock_);
    ASSERT_TRUE(jobs().load());
  }
  wire::AssignLearn lease(const PeerId& holder = "g") {
    auto leased = jobs().lease(holder);
    if (!leased || !leased.value()) {
      ADD_FAILURE() << (leased ? "nothing waits" : leased.error().message);
      return {};
    }
    return *leased.value();
  }
  bool idle(const PeerId& holder = "g") { return !jobs().lease(holder).value().has_value(); }
  Result<JobQueue::Outcome> deliver(const wire::AssignLearn& lease, float value = 1.0f) {
    const MemoryPayload payload = small_payload(value);
    return jobs().result(result_of(lease, payload), payload.bytes(),
                         std::as_bytes(std::span(keys_)));
  }
  std::size_t versions(const MemoryRef& ref) {
    const auto history = bank().history(ref, kFarDeadline);
    return history ? history.value().size() : 0;
  }

  ManualClock clock_;
  MemoryStore real_{clock_};
  FaultyStore store_{real_};
  std::optional<Life> life_{std::in_place, store_, clock_};
  const std::vector<float> keys_ = std::vector<float>(2 * kDim, 0.5f);
};

TEST_F(JobQueueTest, LearnsAJobFromSubmissionToMemory) {
  const Job job = jobs().submit(draft()).value();
  EXPECT_EQ(job.state, JobState::kQueued);
  EXPECT_EQ(job.target.text(), "default/skerrow-lora");
  const auto leased = lease();
  EXPECT_EQ(leased.job, job.id);
  EXPECT_EQ(leased.lease, 1u);
  EXPECT_EQ(leased.text, draft().text);
  EXPECT_EQ(leased.expected, "");
  const auto done = deliver(leased);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done.value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kDone);
  const auto head = bank().head(job.target, kFarDeadline).value();
  EXPECT_EQ(head.token, job.id + ":1");
  EXPECT_EQ(head.origin, VersionOrigin::kLearned);
  EXPECT_EQ(head.source, "skerrow");
  EXPECT_EQ(head.keys, 2u);
  EXPECT_EQ(head.stats.recall, 0.97);
  EXPECT_EQ(bank().load_source(head, kFarDeadline).value(), draft().text);
  EXPECT_TRUE(idle());
}

TEST_F(JobQueueTest, KeepsALeaseWhoseResultFindsNoSpaceUntilThereIsSome) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  for (int i = 0; i < 3; ++i) {
    store_.fail_before(Call::kPut, store_.calls(Call::kPut) + 1, ErrorCode::kNoSpace);
    const auto refused = deliver(leased);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
    clock_.advance(kOptions.lease - std::chrono::seconds(1));
    EXPECT_TRUE(jobs().expire().empty());
    EXPECT_EQ(jobs().find(job.id)->state, JobState::kLeased) << "the attempts renew it";
  }
  const auto done = deliver(leased);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done.value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kDone);
  EXPECT_EQ(versions(job.target), 1u);
}

TEST_F(JobQueueTest, RefusesKeysThatWouldBlindTheSearchOfOthers) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  const MemoryPayload payload = small_payload(1.0f);
  std::vector<float> keys = keys_;
  keys[3] = 3e38f;
  const auto outcome =
      jobs().result(result_of(leased, payload), payload.bytes(), std::as_bytes(std::span(keys)));
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome.value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kFailed);
  EXPECT_EQ(versions(job.target), 0u);
}

TEST_F(JobQueueTest, LeasesRunLongerByTheTimeInWhichNobodyListened) {
  const Job job = jobs().submit(draft()).value();
  lease();
  clock_.advance(10 * kOptions.lease);
  jobs().excuse(10 * kOptions.lease);
  EXPECT_TRUE(jobs().expire().empty());
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kLeased);
  clock_.advance(kOptions.lease);
  jobs().expire();
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kQueued);
}

TEST_F(JobQueueTest, KeepsJobsOverARestart) {
  const Job first = jobs().submit(draft("a")).value();
  clock_.advance(std::chrono::seconds(1));
  const Job second = jobs().submit(draft("b")).value();
  restart();
  EXPECT_EQ(jobs().waiting(), 2u);
  EXPECT_EQ(lease().job, first.id);
  EXPECT_EQ(lease().job, second.id);
}

TEST_F(JobQueueTest, LetsALeaseGoOnOverARestart) {
  jobs().submit(draft()).value();
  const auto leased = lease();
  restart();
  EXPECT_TRUE(idle("other"));
  EXPECT_TRUE(jobs().progress("g", {.job = leased.job, .lease = 1, .phase = "training"}));
  EXPECT_EQ(jobs().leases("g"), 1u);
  EXPECT_TRUE(deliver(leased).value().ack.accepted);
}

TEST_F(JobQueueTest, MakesARetriedSubmissionOnce) {
  auto d = draft();
  d.origin = "77:3";
  const Job first = jobs().submit(d).value();
  EXPECT_EQ(jobs().submit(d).value().id, first.id);
  restart();
  EXPECT_EQ(jobs().submit(d).value().id, first.id);
  EXPECT_EQ(jobs().waiting(), 1u);
}

TEST_F(JobQueueTest, FencesALeaseThatRanOut) {
  jobs().submit(draft()).value();
  const auto late = lease("slow");
  clock_.advance(std::chrono::seconds(31));
  EXPECT_TRUE(jobs().expire().empty());
  clock_.advance(std::chrono::seconds(1));
  const auto now = lease("quick");
  EXPECT_EQ(now.lease, 2u);
  EXPECT_FALSE(jobs().progress("slow", {.job = late.job, .lease = 1, .phase = ""}));
  const auto refused = deliver(late, 1.0f);
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused.value().ack.accepted);
  EXPECT_EQ(versions(late.target), 0u);
  EXPECT_TRUE(deliver(now, 2.0f).value().ack.accepted);
  EXPECT_EQ(versions(late.target), 1u);
  EXPECT_FALSE(deliver(late, 1.0f).value().ack.accepted);
  EXPECT_EQ(bank().head(late.target, kFarDeadline).value().token, now.job + ":2");
}

TEST_F(JobQueueTest, RenewsALeaseByProgress) {
  jobs().submit(draft()).value();
  const auto leased = lease();
  for (int i = 0; i < 10; ++i) {
    clock_.advance(std::chrono::seconds(20));
    EXPECT_TRUE(jobs().progress("g", {.job = leased.job, .lease = 1, .phase = "training"}));
    jobs().expire();
  }
  EXPECT_TRUE(deliver(leased).value().ack.accepted);
}

TEST_F(JobQueueTest, GivesALostGeneratorsJobsToAnother) {
  jobs().submit(draft()).value();
  lease("gone");
  EXPECT_TRUE(jobs().drop_holder("gone").empty());
  EXPECT_TRUE(idle("other"));  // after a pause
  clock_.advance(std::chrono::seconds(1));
  EXPECT_EQ(lease("other").lease, 2u);
}

TEST_F(JobQueueTest, GivesUpAJobWhoseGeneratorsAreLostTooOften) {
  const Job job = jobs().submit(draft()).value();
  std::size_t failed = 0;
  for (std::uint32_t i = 0; i <= kOptions.max_lost; ++i) {
    clock_.advance(std::chrono::minutes(1));
    lease("g");
    failed += jobs().drop_holder("g").size();
  }
  EXPECT_EQ(failed, 1u);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kFailed);
  EXPECT_NE(jobs().find(job.id)->message.find("lost"), std::string::npos);
}

TEST_F(JobQueueTest, TriesAgainAfterAPassingFailureAndEndsAfterALastingOne) {
  const Job job = jobs().submit(draft()).value();
  auto leased = lease();
  ASSERT_TRUE(jobs()
                  .failed({leased.job, leased.lease, ErrorCode::kUnavailable, "busy"})
                  .value()
                  .ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kQueued);
  clock_.advance(std::chrono::minutes(1));
  leased = lease();
  EXPECT_FALSE(jobs().failed({leased.job, 1, ErrorCode::kMismatch, "late"}).value().ack.accepted);
  ASSERT_TRUE(
      jobs().failed({leased.job, 2, ErrorCode::kMismatch, "no such layer"}).value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kFailed);
  EXPECT_EQ(jobs().find(job.id)->code, ErrorCode::kMismatch);
  EXPECT_EQ(jobs().find(job.id)->message, "no such layer");
  restart();
  EXPECT_EQ(jobs().find(job.id)->message, "no such layer");
}

TEST_F(JobQueueTest, AcceptsARepeatedResultWithoutPublishingItAgain) {
  jobs().submit(draft()).value();
  const auto leased = lease();
  ASSERT_TRUE(deliver(leased).value().ack.accepted);
  const auto again = deliver(leased);
  EXPECT_TRUE(again.value().ack.accepted);
  ASSERT_TRUE(again.value().published);
  EXPECT_EQ(again.value().published->ref.version, 1u);
  EXPECT_EQ(versions(leased.target), 1u);
}

TEST_F(JobQueueTest, PublishesAnotherVersionWhenASourceIsLearnedAgain) {
  jobs().submit(draft()).value();
  ASSERT_TRUE(deliver(lease(), 1.0f).value().ack.accepted);
  clock_.advance(std::chrono::seconds(1));
  const Job second = jobs().submit(draft()).value();
  const auto leased = lease();
  EXPECT_EQ(leased.expected, bank().head(second.target, kFarDeadline).value().token);
  ASSERT_TRUE(deliver(leased, 2.0f).value().ack.accepted);
  EXPECT_EQ(versions(second.target), 2u);
  EXPECT_EQ(jobs().find(second.id)->target.version, 2u);
}

TEST_F(JobQueueTest, LeasesOneJobAtATimeForOneMemory) {
  jobs().submit(draft()).value();
  clock_.advance(std::chrono::seconds(1));
  jobs().submit(draft()).value();
  const auto first = lease();
  EXPECT_TRUE(idle("other"));
  ASSERT_TRUE(deliver(first).value().ack.accepted);
  EXPECT_EQ(lease("other").expected, first.job + ":1");
}

TEST_F(JobQueueTest, KeepsTheResultAsABranchWhenTheHeadMoved) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  TestBank other(&real_);  // somebody publishes under the same name meanwhile
  other.publish({.id = "skerrow-lora", .value = 9.0f, .token = "theirs"});
  const auto done = deliver(leased);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done.value().ack.accepted);
  EXPECT_TRUE(jobs().find(job.id)->branch);
  EXPECT_NE(jobs().find(job.id)->message.find("branch"), std::string::npos);
  EXPECT_EQ(bank().head(job.target, kFarDeadline).value().token, "theirs");
  EXPECT_EQ(bank().branches(job.target, kFarDeadline).value().size(), 1u);
}

TEST_F(JobQueueTest, CancelsWaitingAndLeasedJobs) {
  const Job waiting = jobs().submit(draft("a")).value();
  EXPECT_EQ(jobs().cancel(waiting.id, "no more").value().holder, "");
  EXPECT_TRUE(idle());
  EXPECT_EQ(jobs().cancel(waiting.id, "").error().code, ErrorCode::kConflict);
  EXPECT_EQ(jobs().cancel("unknown", "").error().code, ErrorCode::kNotFound);
  clock_.advance(std::chrono::seconds(1));
  jobs().submit(draft("b")).value();
  const auto leased = lease("g");
  const auto cancelled = jobs().cancel(leased.job, "no more").value();
  EXPECT_EQ(cancelled.holder, "g");
  EXPECT_EQ(cancelled.lease, 1u);
  EXPECT_FALSE(deliver(leased).value().ack.accepted);
  EXPECT_EQ(versions(leased.target), 0u);
}

TEST_F(JobQueueTest, RefusesDraftsThatCannotBeLearned) {
  auto empty = draft();
  empty.text.clear();
  EXPECT_EQ(jobs().submit(empty).error().code, ErrorCode::kInvalidArgument);
  auto name = draft("No Name!");
  EXPECT_EQ(jobs().submit(name).error().code, ErrorCode::kInvalidArgument);
  auto ns = draft();
  ns.ns = "../x";
  EXPECT_EQ(jobs().submit(ns).error().code, ErrorCode::kInvalidArgument);
  for (std::size_t i = 0; i < kOptions.max_waiting; ++i) {
    clock_.advance(std::chrono::seconds(1));
    ASSERT_TRUE(jobs().submit(draft("s" + std::to_string(i))));
  }
  EXPECT_EQ(jobs().submit(draft("one-more")).error().code, ErrorCode::kOverloaded);
}

TEST_F(JobQueueTest, FailsAJobWhoseResultIsDamaged) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  const MemoryPayload payload = small_payload(std::nanf(""));
  const auto refused = jobs().result(result_of(leased, payload), payload.bytes(), {});
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused.value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kFailed);
  EXPECT_EQ(jobs().find(job.id)->code, ErrorCode::kCorruption);
  EXPECT_EQ(versions(job.target), 0u);
}

TEST_F(JobQueueTest, FailsAJobWhoseResultIsNotOfTheKindThatItNames) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  const MemoryPayload payload = testing_support::signed_as(small_payload(1.0f), MemoryKind::kMlp);
  const auto refused = jobs().result(result_of(leased, payload), payload.bytes(), {});
  ASSERT_TRUE(refused);
  EXPECT_FALSE(refused.value().ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->code, ErrorCode::kMismatch);
  EXPECT_NE(jobs().find(job.id)->message.find("expected down, gate, up, found"), std::string::npos)
      << jobs().find(job.id)->message;
  EXPECT_EQ(versions(job.target), 0u);
}

TEST_F(JobQueueTest, FailsAJobWhoseKeysAreNotRows) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  const MemoryPayload payload = small_payload(1.0f);
  const std::vector<float> crooked(kDim + 1, 0.5f), infinite(kDim, INFINITY);
  EXPECT_FALSE(
      jobs()
          .result(result_of(leased, payload), payload.bytes(), std::as_bytes(std::span(crooked)))
          .value()
          .ack.accepted);
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kFailed);
  EXPECT_EQ(versions(job.target), 0u);
}

TEST_F(JobQueueTest, ForgetsTheOldestFinishedJobsAndTheirTexts) {
  for (int i = 0; i < 6; ++i) {
    clock_.advance(std::chrono::seconds(1));
    const Job job = jobs().submit(draft(std::string("s").append(std::to_string(i)))).value();
    ASSERT_TRUE(jobs().cancel(job.id, ""));
  }
  jobs().expire();
  EXPECT_EQ(jobs().jobs().size(), kOptions.keep_finished);
  restart();
  EXPECT_EQ(jobs().jobs().size(), kOptions.keep_finished);
  EXPECT_EQ(jobs().jobs()[0]->source, "s3");
}

// Every write of a job's life fails, once before it happened and once after, and the controller
// dies there: whatever was acknowledged survives, and nothing is learned twice.
class JobQueueCrash : public JobQueueTest,
                      public testing::WithParamInterface<std::tuple<int, bool>> {};

TEST_P(JobQueueCrash, LosesNothingAndLearnsOnce) {
  const auto [number, after] = GetParam();
  for (const Call call : {Call::kPublish, Call::kPut}) {
    SCOPED_TRACE(call == Call::kPublish ? "publish" : "put");
    ManualClock clock;
    clock.advance(std::chrono::hours(1));
    MemoryStore real(clock);
    FaultyStore store(real);
    after ? store.fail_after(call, number, ErrorCode::kIo)
          : store.fail_before(call, number, ErrorCode::kIo);
    std::optional<Life> life{std::in_place, store, clock};
    const MemoryPayload payload = small_payload(1.0f);
    auto d = draft();
    d.origin = "1:1";
    bool acknowledged = false;
    std::optional<wire::AssignLearn> held;
    for (int lives = 0; lives < 6; ++lives) {
      if (!life->jobs.submit(d)) {  // dies; the client retries with the next one
        life.emplace(store, clock);
        ASSERT_TRUE(life->jobs.load());
        continue;
      }
      acknowledged = true;
      clock.advance(std::chrono::minutes(1));
      static_cast<void>(life->jobs.expire());
      clock.advance(std::chrono::minutes(1));
      auto leased = life->jobs.lease("g");
      if (leased && leased.value()) held = *leased.value();
      if (leased && held) {
        const auto result = life->jobs.result(result_of(*held, payload), payload.bytes(), {});
        if (result && result.value().ack.accepted) break;
      }
      life.emplace(store, clock);
      ASSERT_TRUE(life->jobs.load());
    }
    ASSERT_TRUE(acknowledged);
    life.emplace(real, clock);
    ASSERT_TRUE(life->jobs.load());
    ASSERT_EQ(life->jobs.jobs().size(), 1u);
    const Job& job = *life->jobs.jobs()[0];
    EXPECT_EQ(job.state, JobState::kDone);
    EXPECT_EQ(life->bank.history(job.target, kFarDeadline).value().size(), 1u);
    EXPECT_TRUE(life->bank.branches(job.target, kFarDeadline).value().empty());
    EXPECT_FALSE(life->jobs.lease("g").value().has_value());
  }
}

INSTANTIATE_TEST_SUITE_P(EveryWrite, JobQueueCrash,
                         testing::Combine(testing::Range(1, 8), testing::Bool()));

TEST_F(JobQueueTest, FindsAResultThatWasPublishedButNotNoted) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  const int publishes = store_.calls(Call::kPublish);
  store_.fail_before(Call::kPublish, publishes + 2, ErrorCode::kIo);  // the memory's is the first
  EXPECT_FALSE(deliver(leased));
  EXPECT_EQ(versions(job.target), 1u);
  restart();
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kDone);
  EXPECT_EQ(jobs().find(job.id)->target.version, 1u);
  EXPECT_TRUE(deliver(leased).value().ack.accepted);
  EXPECT_EQ(versions(job.target), 1u);
}

TEST_F(JobQueueTest, LearnsNothingTwiceWhereAResultWasPublishedButNotNoted) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  store_.fail_before(Call::kPublish, store_.calls(Call::kPublish) + 2, ErrorCode::kIo);
  EXPECT_FALSE(deliver(leased));
  clock_.advance(std::chrono::seconds(31));
  const auto ended = jobs().expire();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0]->state, JobState::kDone);
  EXPECT_EQ(ended[0]->target.version, 1u);
  clock_.advance(std::chrono::minutes(1));
  EXPECT_TRUE(idle());
  EXPECT_EQ(versions(job.target), 1u);
}

TEST_F(JobQueueTest, EndsAWaitingJobWhoseResultTurnsUpInTheBank) {
  const Job job = jobs().submit(draft()).value();
  const auto leased = lease();
  jobs().drop_holder("g");
  clock_.advance(std::chrono::minutes(1));
  TestBank late(&real_);  // a write of the lost lease that came through after all
  late.publish({.id = "skerrow-lora", .value = 1.0f, .token = job.id + ":1"});
  EXPECT_TRUE(idle());
  const auto ended = jobs().expire();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0]->state, JobState::kDone);
  EXPECT_TRUE(jobs().expire().empty());
  EXPECT_EQ(versions(job.target), 1u);
}

TEST_F(JobQueueTest, FailsAJobWhoseTextIsLostAndLeasesTheNext) {
  const Job bad = jobs().submit(draft("a")).value();
  clock_.advance(std::chrono::seconds(1));
  const Job good = jobs().submit(draft("b")).value();
  const auto document = life_->documents.get("job", "all", bad.id, kFarDeadline).value();
  ASSERT_TRUE(real_.erase_payload(document.blob_token, kFarDeadline));
  EXPECT_EQ(lease().job, good.id);
  EXPECT_EQ(jobs().find(bad.id)->state, JobState::kFailed);
  EXPECT_EQ(jobs().find(bad.id)->code, ErrorCode::kNotFound);
  const auto ended = jobs().expire();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0]->id, bad.id);
}

TEST_F(JobQueueTest, LeavesDocumentsThatAreNoJobsAlone) {
  const Job good = jobs().submit(draft()).value();
  ASSERT_TRUE(real_.publish("job/all/0-broken", "", "t1", "not a document", kFarDeadline));
  DocumentDraft odd;
  odd.json = "{}";
  ASSERT_TRUE(life_->documents.put("job", "all", "0-odd", odd, kFarDeadline));
  restart();
  EXPECT_EQ(jobs().jobs().size(), 1u);
  EXPECT_EQ(lease().job, good.id);
}

TEST_F(JobQueueTest, LeasesOnlyWhatTheGeneratorMaySee) {
  jobs().submit(draft("a")).value();
  clock_.advance(std::chrono::seconds(1));
  auto notes = draft("b");
  notes.ns = "notes";
  const Job seen = jobs().submit(notes).value();
  const auto can = [](const Job& job) { return job.target.ns == "notes"; };
  EXPECT_EQ(jobs().lease("g", can).value()->job, seen.id);
  EXPECT_FALSE(jobs().lease("g", can).value().has_value());
  EXPECT_EQ(lease("other").source, "a");
}

TEST_F(JobQueueTest, KnowsTheSlotLayerThatAJobAsksForAfterARestartToo) {
  auto high = draft("a");
  high.config = R"({"layer":7})";
  high.layer = 7;
  const auto id = jobs().submit(high).value().id;
  const auto any = jobs().submit(draft("b")).value().id;
  for (int life = 0; life < 2; ++life) {
    EXPECT_EQ(jobs().find(id)->layer, 7);
    EXPECT_EQ(jobs().find(any)->layer, -1);
    restart();
  }
}

TEST_F(JobQueueTest, CountsAGeneratorThatStopsAsLostAndNotAsAFailure) {
  const Job job = jobs().submit(draft()).value();
  for (const auto code : {ErrorCode::kCancelled, ErrorCode::kUnavailable, ErrorCode::kTimeout}) {
    clock_.advance(std::chrono::minutes(1));
    const auto leased = lease();
    ASSERT_TRUE(jobs().failed({leased.job, leased.lease, code, "stops"}).value().ack.accepted);
  }
  EXPECT_EQ(jobs().find(job.id)->state, JobState::kQueued);
  EXPECT_EQ(jobs().find(job.id)->failed, 0u);
  EXPECT_EQ(jobs().find(job.id)->lost, 3u);
}

TEST_F(JobQueueTest, AsksAgainWhereTheOutcomeOfAWriteIsUnknown) {
  const int publishes = store_.calls(Call::kPublish);
  store_.fail_after(Call::kPublish, publishes + 1, ErrorCode::kIndeterminate);
  ASSERT_TRUE(jobs().submit(draft()));
  const auto leased = lease();
  store_.fail_after(Call::kPublish, store_.calls(Call::kPublish) + 1, ErrorCode::kIndeterminate);
  ASSERT_TRUE(deliver(leased).value().ack.accepted);
  EXPECT_EQ(versions(leased.target), 1u);
}

TEST_F(JobQueueTest, GoesOnAfterAWriteThatWasSaidToFailButCameThrough) {
  ASSERT_TRUE(jobs().submit(draft()));
  store_.fail_after(Call::kPublish, store_.calls(Call::kPublish) + 1, ErrorCode::kIo);
  EXPECT_FALSE(jobs().lease("g"));
  const auto leased = lease();
  EXPECT_EQ(leased.lease, 1u);  // the failed one was never handed out
  EXPECT_TRUE(deliver(leased).value().ack.accepted);
  restart();
  EXPECT_EQ(jobs().find(leased.job)->state, JobState::kDone);
}

TEST_F(JobQueueTest, KeepsNoTextOfAFinishedJobBesideTheMemorys) {
  const auto payloads = [&] {
    return real_.list_payloads("", 100, kFarDeadline).value().entries.size();
  };
  jobs().submit(draft()).value();
  EXPECT_EQ(payloads(), 1u);
  ASSERT_TRUE(deliver(lease()).value().ack.accepted);
  EXPECT_EQ(payloads(), 3u);  // parameters, keys and source of the memory
  const Job other = jobs().submit(draft("other")).value();
  ASSERT_TRUE(jobs().cancel(other.id, ""));
  EXPECT_EQ(payloads(), 3u);
}

TEST_F(JobQueueTest, RefersToNoTextOnceAJobIsFinishedThoughItCouldNotBeErased) {
  jobs().submit(draft()).value();
  const auto leased = lease();
  store_.fail_before(Call::kErasePayload, store_.calls(Call::kErasePayload) + 1, ErrorCode::kIo);
  ASSERT_TRUE(deliver(leased).value().ack.accepted);
  EXPECT_EQ(real_.list_payloads("", 100, kFarDeadline).value().entries.size(), 4u);
  EXPECT_EQ(life_->documents.history("job", "all", leased.job, kFarDeadline).value().size(), 1u);
  clock_.advance(std::chrono::hours(1));
  const auto report = collect_garbage(real_, clock_, std::chrono::minutes(10), kFarDeadline);
  EXPECT_EQ(report.value().removed, 1u);
}

TEST_F(JobQueueTest, ForgetsEverythingAboutTheJobsOfAMemory) {
  const Job done = jobs().submit(draft()).value();
  ASSERT_TRUE(deliver(lease()).value().ack.accepted);
  clock_.advance(std::chrono::seconds(1));
  const Job other = jobs().submit(draft("other")).value();
  clock_.advance(std::chrono::seconds(1));
  const Job queued = jobs().submit(draft()).value();
  ASSERT_TRUE(jobs().forget(done.target));
  EXPECT_EQ(jobs().jobs().size(), 1u);
  EXPECT_NE(jobs().find(other.id), nullptr);
  EXPECT_EQ(real_.list_payloads("", 100, kFarDeadline).value().entries.size(), 4u);
  restart();
  EXPECT_EQ(jobs().find(done.id), nullptr);
  EXPECT_EQ(jobs().find(queued.id), nullptr);
  EXPECT_EQ(lease().job, other.id);
}

TEST_F(JobQueueTest, SaysThatTheQuotaIsReachedAndKeepsNothing) {
  MemoryStore small(clock_, 40);
  Life life(small, clock_);
  auto d = draft();
  d.text = std::string(100, 'x');
  const auto refused = life.jobs.submit(d);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  EXPECT_TRUE(life.jobs.jobs().empty());
}

TEST(JobJson, ComesBackAsItWas) {
  Job job;
  job.id = "j1";
  job.target = {.ns = "notes", .id = "a", .version = 3};
  job.source = "a";
  job.config = R"({"kind":"mlp"})";
  job.origin = "1:2";
  job.state = JobState::kFailed;
  job.lease = 4;
  job.expected = "t";
  job.failed = 2;
  job.lost = 1;
  job.created_unix_ms = 77;
  job.branch = true;
  job.code = ErrorCode::kNoSpace;
  job.message = "quota: \"full\"";
  EXPECT_EQ(to_json(job_from_json(to_json(job)).value()), to_json(job));
  EXPECT_EQ(job_from_json(to_json(job)).value().code, ErrorCode::kNoSpace);
  EXPECT_EQ(job_from_json("{}").error().code, ErrorCode::kCorruption);
  EXPECT_EQ(job_from_json("nonsense").error().code, ErrorCode::kCorruption);
  const std::string text = to_json(job);
  const auto deep = job_from_json(deep_json(text.substr(0, text.size() - 1) + R"(,"more":)", "}"));
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().code, ErrorCode::kCorruption);
}

TEST(JobJson, HasACodeOnlyWhereSomethingWentWrong) {
  Job job;
  const auto has_code = [&] { return nlohmann::json::parse(to_json(job)).contains("code"); };
  EXPECT_FALSE(has_code());
  job.message = "generator lost";  // it waits for another one
  EXPECT_TRUE(has_code());
  job.state = JobState::kDone;
  EXPECT_FALSE(has_code());
  job.state = JobState::kFailed;
  job.message.clear();  // a generator need not say more than the code
  EXPECT_TRUE(has_code());
}

}  // namespace
}  // namespace memslot
