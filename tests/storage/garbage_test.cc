// Garbage collection removes orphans past the grace period and nothing else.
#include "storage/garbage.h"

#include "storage/document_bank.h"
#include "storage/record_metadata.h"
#include "tests/storage/memory_samples.h"
#include "tests/support/deep_json.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

TEST(RecordMetadata, ThatNestsTooDeeplyIsDamageAndNotACrash) {
  const auto tokens = referenced_payloads(deep_json(R"({"parts":{},"more":)", "}"));
  EXPECT_ERROR(tokens, ErrorCode::kCorruption);
}

class GarbageTest : public testing::Test {
 protected:
  Result<GarbageReport> collect(BankStore& store) {
    return collect_garbage(store, clock_, std::chrono::minutes(60), kNoDeadline);
  }
  void age() { clock_.advance(std::chrono::minutes(61)); }
  ManualClock clock_;
  MemoryStore store_{clock_};
  MemoryBank bank_{store_, clock_};
};

TEST_F(GarbageTest, AnOrphanWaitsForTheGracePeriodAndIsThenRemoved) {
  ASSERT_OK(store_.put_payload("orphan", bytes_of("12345"), kNoDeadline));
  auto report = collect(store_).value();
  EXPECT_EQ(report.waiting, 1U);
  EXPECT_EQ(report.removed, 0U);
  age();
  report = collect(store_).value();
  EXPECT_EQ(report.removed, 1U);
  EXPECT_EQ(report.removed_bytes, 5U);
  EXPECT_EQ(payload_count(store_), 0U);
}

TEST_F(GarbageTest, CompactsWhereItRemovedSomethingAndOnlyThere) {
  FaultyStore store(store_);
  ASSERT_OK(store.put_payload("orphan", bytes_of("12345"), kNoDeadline));
  ASSERT_OK(collect(store));
  EXPECT_EQ(store.calls(FaultyStore::Call::kCompact), 0);
  age();
  ASSERT_OK(collect(store));
  EXPECT_EQ(store.calls(FaultyStore::Call::kCompact), 1);
}

TEST_F(GarbageTest, ARetriedPutBeginsTheGracePeriodAnew) {
  ASSERT_OK(store_.put_payload("slow", bytes_of("x"), kNoDeadline));
  age();
  ASSERT_OK(store_.put_payload("slow", bytes_of("x"), kNoDeadline));
  EXPECT_EQ(collect(store_).value().waiting, 1U);
}

TEST_F(GarbageTest, HeadsHistoriesBranchesRollbacksAndDocumentsAreKept) {
  Sample one("t1", 1), two("t2", 2), lost("t3", 3);
  ASSERT_OK(bank_.publish_memory(one.draft, kNoDeadline));
  ASSERT_OK(bank_.publish_memory(two.expecting("t1").draft, kNoDeadline));
  ASSERT_OK(bank_.publish_memory(lost.expecting("t1").draft, kNoDeadline));
  ASSERT_OK(bank_.rollback(kSkerrow, 1, "t2", "t4", kNoDeadline));
  bank_.note_use(kSkerrow, 0.1);
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  DocumentBank documents(store_, clock_);
  const std::vector<std::byte> blob(10);
  DocumentDraft draft;
  draft.json = "{}";
  draft.blob = blob;
  ASSERT_OK(documents.put("policy", "default", "p", draft, kNoDeadline));
  ASSERT_OK(store_.put_payload("orphan", bytes_of("x"), kNoDeadline));
  age();
  const auto report = collect(store_).value();
  EXPECT_EQ(report.payloads, 11U);
  EXPECT_EQ(report.removed, 1U);
  EXPECT_TRUE(bank_.verify(nullptr, kNoDeadline).value().bad.empty());
}

TEST_F(GarbageTest, BlobsOfForgottenDocumentVersionsAreRemoved) {
  DocumentBank documents(store_, clock_);
  std::string head;
  for (int i = 0; i < 16; ++i) {
    const std::vector<std::byte> blob(10, static_cast<std::byte>(i));
    DocumentDraft draft;
    draft.expected = head;
    draft.json = "{}";
    draft.blob = blob;
    draft.keep = 1;
    head = documents.put("policy", "default", "p", draft, kNoDeadline).value().token;
  }
  age();
  EXPECT_EQ(collect(store_).value().removed, 15U);
  const auto document = documents.get("policy", "default", "p", kNoDeadline).value();
  EXPECT_EQ(documents.load_blob(document, kNoDeadline).value().size(), 10U);
}

TEST_F(GarbageTest, AVersionPublishedWhileCollectingIsKept) {
  FaultyStore slow(store_);
  Sample sample("t1");
  ASSERT_OK(store_.put_payload("t1:p", sample.payload.bytes(), kNoDeadline));
  age();
  // After the payloads were listed, before the records are: the latest moment that can matter.
  slow.run_before(FaultyStore::Call::kList, 1,
                  [&] { ASSERT_OK(bank_.publish_memory(sample.draft, kNoDeadline)); });
  EXPECT_EQ(collect(slow).value().removed, 0U);
  EXPECT_TRUE(bank_.verify(nullptr, kNoDeadline).value().bad.empty());
}

TEST_F(GarbageTest, UnreadableMetadataStopsEverythingBecauseItMightReferToAnything) {
  ASSERT_OK(store_.put_payload("orphan", bytes_of("x"), kNoDeadline));
  ASSERT_OK(store_.publish("strange/record", "", "t", "not json", kNoDeadline));
  age();
  const auto result = collect(store_);
  EXPECT_ERROR(result, ErrorCode::kCorruption);
  EXPECT_NE(result.error().message.find("strange/record"), std::string::npos);
  EXPECT_EQ(payload_count(store_), 1U);
}

}  // namespace
}  // namespace memslot
