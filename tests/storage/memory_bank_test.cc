// The bank of memories, over both stores.
#include "storage/memory_bank.h"

#include <limits>

#include "tests/storage/memory_samples.h"

namespace memslot {
namespace {

class MemoryBankTest : public EachStore {
 protected:
  Result<PublishedMemory> publish(Sample& sample) {
    return bank_.publish_memory(sample.draft, kNoDeadline);
  }
  std::unique_ptr<BankStore> store_ = open();
  MemoryBank bank_{*store_, clock_};
};

TEST_P(MemoryBankTest, APublishedMemoryComesBackWithItsPayloadKeysAndSource) {
  Sample sample("t1");
  const auto published = publish(sample);
  ASSERT_OK(published);
  EXPECT_FALSE(published.value().conflict());
  EXPECT_EQ(published.value().head_token, "t1");
  const auto head = bank_.head(kSkerrow, kNoDeadline).value();
  EXPECT_EQ(head, published.value().version);
  EXPECT_EQ(head.ref.text(), "default/skerrow@1");
  EXPECT_EQ(head.keys, 3U);
  EXPECT_EQ(head.stats, sample.draft.meta.stats);
  EXPECT_GT(head.created_unix_ms, 0);
  const auto payload = bank_.load_payload(head, kNoDeadline);
  ASSERT_OK(payload);
  EXPECT_TRUE(std::ranges::equal(payload.value().bytes(), sample.payload.bytes()));
  EXPECT_EQ(bank_.load_keys(head, kNoDeadline).value().values, sample.keys.values);
  EXPECT_EQ(bank_.load_source(head, kNoDeadline).value(), sample.source);
}

TEST_P(MemoryBankTest, AMemoryWithoutKeysOrSourceSaysSo) {
  Sample sample("t1");
  sample.draft.keys = nullptr;
  sample.draft.source_text.reset();
  const auto version = publish(sample).value().version;
  EXPECT_EQ(version.keys, 0U);
  EXPECT_ERROR(bank_.load_keys(version, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(bank_.load_source(version, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_EQ(payload_count(*store_), 1U);
}

TEST_P(MemoryBankTest, VersionsFormAChainThatCanBeListedAndRead) {
  Sample one("t1", 1), two("t2", 2), three("t3", 3);
  ASSERT_OK(publish(one));
  ASSERT_OK(publish(two.expecting("t1")));
  ASSERT_OK(publish(three.expecting("t2")));
  const auto history = bank_.history(kSkerrow, kNoDeadline).value();
  EXPECT_EQ(tokens_of(history), (std::vector<std::string>{"t1", "t2", "t3"}));
  EXPECT_EQ(history[2].parent, "t2");
  const auto second = bank_.version({"default", "skerrow", 2}, kNoDeadline).value();
  EXPECT_EQ(second.token, "t2");
  EXPECT_TRUE(std::ranges::equal(bank_.load_payload(second, kNoDeadline).value().bytes(),
                                 two.payload.bytes()));
  EXPECT_EQ(bank_.version(kSkerrow, kNoDeadline).value().token, "t3");
  EXPECT_EQ(bank_.version_of_token(kSkerrow, "t1", kNoDeadline).value().ref.version, 1U);
  EXPECT_ERROR(bank_.version({"default", "skerrow", 4}, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(bank_.version_of_token(kSkerrow, "t9", kNoDeadline), ErrorCode::kNotFound);
}

TEST_P(MemoryBankTest, ARetryWithTheSameTokenIsSuccessWhateverCameAfterIt) {
  Sample one("t1", 1), two("t2", 2), lost("t3", 3);
  ASSERT_OK(publish(one));
  EXPECT_EQ(publish(one).value().version.ref.version, 1U);
  ASSERT_OK(publish(two.expecting("t1")));
  const auto late = publish(one);
  ASSERT_OK(late);
  EXPECT_FALSE(late.value().conflict());
  EXPECT_EQ(late.value().version.ref.version, 1U);
  EXPECT_EQ(late.value().head_token, "t2");
  const auto branch = publish(lost.expecting("t1")).value();
  const auto again = publish(lost);
  ASSERT_OK(again);
  EXPECT_EQ(again.value().version, branch.version);
  EXPECT_EQ(bank_.branches(kSkerrow, kNoDeadline).value().size(), 1U);
  EXPECT_EQ(bank_.history(kSkerrow, kNoDeadline).value().size(), 2U);
}

TEST_P(MemoryBankTest, ATokenForOtherBytesIsAConflict) {
  Sample one("t1", 1), other("t1", 2);
  ASSERT_OK(publish(one));
  EXPECT_ERROR(publish(other), ErrorCode::kConflict);
  EXPECT_EQ(bank_.head(kSkerrow, kNoDeadline).value().sha256, one.draft.meta.sha256);
}

TEST_P(MemoryBankTest, TheLoserOfACompareAndSetIsKeptAsABranch) {
  Sample one("t1", 1), two("t2", 2), stale("t3", 3);
  ASSERT_OK(publish(one));
  ASSERT_OK(publish(two.expecting("t1")));
  const auto lost = publish(stale.expecting("t1"));
  ASSERT_OK(lost);
  EXPECT_TRUE(lost.value().conflict());
  EXPECT_EQ(lost.value().head_token, "t2");
  EXPECT_EQ(lost.value().version.token, "t3");
  EXPECT_EQ(lost.value().version.parent, "t1");
  EXPECT_EQ(lost.value().version.ref.version, 0U);
  EXPECT_EQ(bank_.head(kSkerrow, kNoDeadline).value().token, "t2");
  const auto branches = bank_.branches(kSkerrow, kNoDeadline).value();
  EXPECT_EQ(tokens_of(branches), (std::vector<std::string>{"t3"}));
  EXPECT_TRUE(std::ranges::equal(bank_.load_payload(branches[0], kNoDeadline).value().bytes(),
                                 stale.payload.bytes()));
  const auto page = bank_.list("default", {}, "", 10, kNoDeadline).value();
  EXPECT_EQ(page.heads.size(), 1U);
}

TEST_P(MemoryBankTest, AnotherNamespacesMemoryIsNotFound) {
  Sample sample("t1");
  ASSERT_OK(publish(sample));
  const MemoryRef elsewhere{"other", "skerrow", 0};
  const auto none = ErrorCode::kNotFound;
  EXPECT_ERROR(bank_.head(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.version(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.history(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.branches(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.version_of_token(elsewhere, "t1", kNoDeadline), none);
  EXPECT_ERROR(bank_.export_memory(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.erase(elsewhere, kNoDeadline), none);
  EXPECT_ERROR(bank_.rollback(elsewhere, 1, "t1", "t2", kNoDeadline), none);
  EXPECT_ERROR(bank_.statistics(elsewhere, kNoDeadline), none);
  auto version = bank_.head(kSkerrow, kNoDeadline).value();
  version.ref.ns = "other";
  EXPECT_ERROR(bank_.load_payload(version, kNoDeadline), none);
  EXPECT_ERROR(bank_.load_source(version, kNoDeadline), none);
  EXPECT_TRUE(bank_.list("other", {}, "", 10, kNoDeadline).value().heads.empty());
  EXPECT_TRUE(bank_.list("defaul", {}, "", 10, kNoDeadline).value().heads.empty());
  EXPECT_EQ(bank_.namespaces(kNoDeadline).value(), (std::vector<std::string>{"default"}));
}

TEST_P(MemoryBankTest, ListingFiltersByIdAndSourceAndPages) {
  for (int i = 0; i < 12; ++i) {
    Sample sample(std::string("t").append(std::to_string(i)), 1,
                  std::string(i % 2 == 0 ? "a-" : "b-").append(std::to_string(10 + i)));
    if (i % 3 == 0) sample.draft.meta.source = "third";
    ASSERT_OK(publish(sample));
  }
  EXPECT_EQ(bank_.list("default", {}, "", 100, kNoDeadline).value().heads.size(), 12U);
  EXPECT_EQ(bank_.list("default", {"a-", ""}, "", 100, kNoDeadline).value().heads.size(), 6U);
  std::vector<std::string> ids;
  std::string after;
  do {
    const auto page = bank_.list("default", {"", "third"}, after, 3, kNoDeadline).value();
    for (const auto& head : page.heads) ids.push_back(head.ref.id);
    after = page.next;
  } while (!after.empty());
  EXPECT_EQ(ids, (std::vector<std::string>{"a-10", "a-16", "b-13", "b-19"}));
}

TEST_P(MemoryBankTest, RollbackPublishesOldBytesAgainWithoutCopyingThem) {
  Sample one("t1", 1), two("t2", 2);
  ASSERT_OK(publish(one));
  ASSERT_OK(publish(two.expecting("t1")));
  const auto before = payload_count(*store_);
  EXPECT_ERROR(bank_.rollback(kSkerrow, 1, "t1", "t3", kNoDeadline), ErrorCode::kConflict);
  EXPECT_ERROR(bank_.rollback(kSkerrow, 7, "t2", "t3", kNoDeadline), ErrorCode::kNotFound);
  const auto back = bank_.rollback(kSkerrow, 1, "t2", "t3", kNoDeadline);
  ASSERT_OK(back);
  EXPECT_EQ(back.value().ref.version, 3U);
  EXPECT_EQ(back.value().origin, VersionOrigin::kRollback);
  EXPECT_EQ(back.value().origin_id, "t1");
  EXPECT_EQ(back.value().parent, "t2");
  EXPECT_EQ(back.value().sha256, one.draft.meta.sha256);
  EXPECT_EQ(payload_count(*store_), before);
  const auto head = bank_.head(kSkerrow, kNoDeadline).value();
  EXPECT_TRUE(std::ranges::equal(bank_.load_payload(head, kNoDeadline).value().bytes(),
                                 one.payload.bytes()));
  EXPECT_EQ(bank_.load_source(head, kNoDeadline).value(), one.source);
  EXPECT_EQ(bank_.rollback(kSkerrow, 1, "t2", "t3", kNoDeadline).value(), back.value());  // a retry
}

TEST_P(MemoryBankTest, ErasingPurgesEverythingAndLeavesATombstone) {
  Sample one("t1", 1), two("t2", 2), lost("t3", 3);
  ASSERT_OK(publish(one));
  ASSERT_OK(publish(two.expecting("t1")));
  ASSERT_OK(publish(lost.expecting("t1")));
  ASSERT_OK(bank_.rollback(kSkerrow, 1, "t2", "t4", kNoDeadline));
  bank_.note_use(kSkerrow, 0.5);
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  const auto version = bank_.head(kSkerrow, kNoDeadline).value();
  ASSERT_OK(bank_.erase(kSkerrow, kNoDeadline));
  EXPECT_ERROR(bank_.head(kSkerrow, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(bank_.branches(kSkerrow, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(bank_.load_payload(version, kNoDeadline), ErrorCode::kNotFound);
  EXPECT_EQ(payload_count(*store_), 0U);
  EXPECT_TRUE(store_->list("branch/", "", 10, kNoDeadline).value().entries.empty());
  EXPECT_TRUE(store_->list("stats/", "", 10, kNoDeadline).value().entries.empty());
  const auto tombstone = bank_.tombstone(kSkerrow, kNoDeadline).value();
  EXPECT_EQ(tombstone.last_version, 3U);
  EXPECT_GT(tombstone.erased_unix_ms, 0);
  EXPECT_ERROR(bank_.erase(kSkerrow, kNoDeadline), ErrorCode::kNotFound);
}

TEST_P(MemoryBankTest, LateWritesDoNotBringAnErasedMemoryBackButANewOneCountsOn) {
  Sample one("t1", 1), late("t2", 2), fresh("t3", 3);
  ASSERT_OK(publish(one));
  ASSERT_OK(bank_.erase(kSkerrow, kNoDeadline));
  EXPECT_ERROR(publish(one), ErrorCode::kNotFound);                   // a retried creation
  EXPECT_ERROR(publish(late.expecting("t1")), ErrorCode::kNotFound);  // a stale write-back
  EXPECT_EQ(payload_count(*store_), 0U);
  const auto made = publish(fresh);
  ASSERT_OK(made);
  EXPECT_EQ(made.value().version.ref.version, 2U);
  EXPECT_TRUE(bank_.branches(kSkerrow, kNoDeadline).value().empty());
}

TEST_P(MemoryBankTest, WhatDoesNotFitItsDescriptionIsRefusedAndStoresNothing) {
  const auto refuse = [&](auto change, ErrorCode code) {
    Sample sample("t1");
    change(sample);
    EXPECT_ERROR(publish(sample), code);
  };
  const auto bad = ErrorCode::kInvalidArgument;
  refuse([](Sample& s) { s.draft.meta.ref.id = "Upper"; }, bad);
  refuse([](Sample& s) { s.draft.meta.ref.ns = "../x"; }, bad);
  refuse([](Sample& s) { s.draft.meta.source = "a source"; }, bad);
  refuse([](Sample& s) { s.draft.meta.token = ""; }, bad);
  refuse([](Sample& s) { s.draft.meta.token = std::string(121, 't'); }, bad);
  refuse([](Sample& s) { s.draft.meta.stats.config = std::string(70'000, 'c'); }, bad);
  refuse([](Sample& s) { s.draft.meta.stats.recall = std::numeric_limits<double>::quiet_NaN(); },
         bad);
  refuse([](Sample& s) { s.draft.meta.origin_id = "\xff\xfe"; }, bad);
  refuse([](Sample& s) { s.keys.values[2] = std::numeric_limits<float>::infinity(); }, bad);
  refuse([](Sample& s) { s.keys.values.clear(); }, bad);
  refuse([](Sample& s) { s.keys.values.pop_back(); }, bad);
  const auto wrong = ErrorCode::kMismatch;
  refuse([](Sample& s) { s.keys = {3, std::vector<float>(6)}; }, wrong);
  refuse([](Sample& s) { s.draft.meta.signature.layer = 21; }, wrong);
  refuse([](Sample& s) { s.draft.meta.signature.kind = MemoryKind::kMlp; }, wrong);
  refuse([](Sample& s) { s.draft.meta.signature.model = sha256(bytes_of("another")); }, wrong);
  refuse([](Sample& s) { s.draft.meta.dtype = DType::kF32; }, wrong);
  const auto relabel = [](Sample& s, MemoryKind kind, MlpForm form) {
    s.payload = testing_support::signed_as(s.payload, kind, form);
    s.draft.meta.signature = s.payload.signature();
    s.describe();
  };
  refuse([&](Sample& s) { relabel(s, MemoryKind::kMlp, MlpForm::kSwiGlu); }, wrong);
  refuse([&](Sample& s) { relabel(s, MemoryKind::kDelta, MlpForm::kSwiGlu); }, wrong);
  refuse([&](Sample& s) { relabel(s, MemoryKind::kLora, MlpForm::kGeluTanh); }, wrong);
  const auto corrupt_code = ErrorCode::kCorruption;
  refuse([](Sample& s) { ++s.draft.meta.payload_bytes; }, corrupt_code);
  refuse([](Sample& s) { s.draft.meta.sha256 = sha256(bytes_of("x")); }, corrupt_code);
  refuse(
      [](Sample& s) {
        s.payload = sample_payload(std::numeric_limits<float>::quiet_NaN());
        s.describe();
      },
      corrupt_code);
  refuse(
      [](Sample& s) {
        s.draft.payload = s.draft.payload.first(s.draft.payload.size() - 1);
        --s.draft.meta.payload_bytes;
        s.draft.meta.sha256 = sha256(s.draft.payload);
      },
      corrupt_code);
  refuse([](Sample& s) { s.draft.expected = "nothing-there"; }, ErrorCode::kNotFound);
  EXPECT_EQ(payload_count(*store_), 0U);
  EXPECT_TRUE(store_->list("", "", 10, kNoDeadline).value().entries.empty());
}

TEST_P(MemoryBankTest, StatisticsAddUpAndLiveApartFromVersions) {
  Sample sample("t1");
  ASSERT_OK(publish(sample));
  bank_.note_use(kSkerrow, 0.5);
  bank_.note_use(kSkerrow, std::nullopt);
  bank_.note_use({"default", "never-made", 0}, 1.0);
  const MemoryStatistics first{2, 1, 0.5};
  EXPECT_EQ(bank_.statistics(kSkerrow, kNoDeadline).value(), first);
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  EXPECT_EQ(bank_.statistics(kSkerrow, kNoDeadline).value(), first);
  bank_.note_use(kSkerrow, -0.5);
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  MemoryBank reopened(*store_, clock_);
  EXPECT_EQ(reopened.statistics(kSkerrow, kNoDeadline).value(), (MemoryStatistics{3, 2, 0.0}));
  EXPECT_EQ(bank_.history(kSkerrow, kNoDeadline).value().size(), 1U);
  EXPECT_EQ(store_->list("stats/", "", 10, kNoDeadline).value().entries.size(), 1U);
}

TEST_P(MemoryBankTest, EveryCallKnowsItsDeadline) {
  Sample sample("t1");
  const auto version = publish(sample).value().version;
  const auto past = clock_.now() - std::chrono::seconds(1);
  const auto code = ErrorCode::kTimeout;
  EXPECT_ERROR(bank_.publish_memory(sample.draft, past), code);
  EXPECT_ERROR(bank_.head(kSkerrow, past), code);
  EXPECT_ERROR(bank_.history(kSkerrow, past), code);
  EXPECT_ERROR(bank_.branches(kSkerrow, past), code);
  EXPECT_ERROR(bank_.list("default", {}, "", 1, past), code);
  EXPECT_ERROR(bank_.namespaces(past), code);
  EXPECT_ERROR(bank_.load_payload(version, past), code);
  EXPECT_ERROR(bank_.rollback(kSkerrow, 1, "t1", "t2", past), code);
  EXPECT_ERROR(bank_.erase(kSkerrow, past), code);
  EXPECT_ERROR(bank_.export_memory(kSkerrow, past), code);
  EXPECT_ERROR(bank_.verify(nullptr, past), code);
  EXPECT_ERROR(bank_.statistics(kSkerrow, past), code);
}

TEST_P(MemoryBankTest, VerifyReadsEverythingAndCanBeStopped) {
  Sample one("t1", 1), two("t2", 2), lost("t3", 3);
  ASSERT_OK(publish(one));
  ASSERT_OK(publish(two.expecting("t1")));
  ASSERT_OK(publish(lost.expecting("t1")));
  ASSERT_OK(bank_.rollback(kSkerrow, 1, "t2", "t4", kNoDeadline));
  ASSERT_OK(store_->put_payload("orphan", bytes_of("x"), kNoDeadline));
  std::uint64_t last = 0;
  const auto report = bank_.verify(
      [&](std::uint64_t done, std::uint64_t total) {
        EXPECT_EQ(done, last + 1);
        EXPECT_EQ(total, 10U);
        last = done;
        return true;
      },
      kNoDeadline);
  ASSERT_OK(report);
  EXPECT_EQ(report.value().versions, 4U);
  EXPECT_EQ(report.value().payloads, 10U);
  EXPECT_TRUE(report.value().bad.empty());
  EXPECT_ERROR(bank_.verify([](std::uint64_t, std::uint64_t) { return false; }, kNoDeadline),
               ErrorCode::kCancelled);
  ASSERT_OK(store_->erase_payload("t2:k", kNoDeadline));
  const auto damaged = bank_.verify(nullptr, kNoDeadline).value();
  ASSERT_EQ(damaged.bad.size(), 1U);
  EXPECT_EQ(damaged.bad[0].record, "memory/default/skerrow@2");
  EXPECT_EQ(damaged.bad[0].payload, "t2:k");
}

MEMSLOT_EACH_STORE(MemoryBankTest);

}  // namespace
}  // namespace memslot
