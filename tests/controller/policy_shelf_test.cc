#include "controller/policy/policy_shelf.h"

#include <gtest/gtest.h>

#include "tests/controller/learned.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

struct PolicyShelfTest : testing::Test {
  SystemClock clock;
  MemoryStore store{clock};
  DocumentBank documents{store, clock};
  PolicyShelf shelf{documents, clock, cosine_engine()};

  std::string publish(float sharpness, std::string_view origin = "file") {
    const auto made = shelf.publish(cosine_checkpoint(sharpness).bytes(), origin, "", kFarDeadline);
    EXPECT_TRUE(made) << made.error().message;
    return made.value()->digest;
  }
};

TEST_F(PolicyShelfTest, AnEmptyBankHasNone) {
  ASSERT_TRUE(shelf.load(kFarDeadline));
  EXPECT_EQ(shelf.head(), nullptr);
  EXPECT_TRUE(shelf.list(kFarDeadline).value().empty());
  EXPECT_EQ(shelf.find("ab", kFarDeadline).error().code, ErrorCode::kNotFound);
}

TEST_F(PolicyShelfTest, WhatWasPublishedIsFoundByAnotherControllerAlsoWhenNewerOnesCame) {
  const std::string first = publish(1), second = publish(2, "online");
  PolicyShelf restarted(documents, clock, cosine_engine());
  ASSERT_TRUE(restarted.load(kFarDeadline));
  ASSERT_NE(restarted.head(), nullptr);
  EXPECT_EQ(restarted.head()->digest, second);
  const auto old = restarted.find(first, kFarDeadline);
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_EQ(old.value()->digest, first);
  EXPECT_EQ(restarted.head()->digest, second);
  const auto all = restarted.list(kFarDeadline).value();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].digest, first);
  EXPECT_EQ(all[1].origin, "online");
}

TEST_F(PolicyShelfTest, NoneActsOnceItIsRetired) {
  ASSERT_TRUE(shelf.retire(kFarDeadline)) << "there was none";
  EXPECT_TRUE(shelf.list(kFarDeadline).value().empty());
  const std::string first = publish(1);
  ASSERT_TRUE(shelf.retire(kFarDeadline));
  ASSERT_TRUE(shelf.retire(kFarDeadline)) << "again";
  EXPECT_EQ(shelf.head(), nullptr);
  PolicyShelf restarted(documents, clock, cosine_engine());
  ASSERT_TRUE(restarted.load(kFarDeadline));
  EXPECT_EQ(restarted.head(), nullptr);
  EXPECT_EQ(restarted.head_number(), 0u);
  EXPECT_TRUE(restarted.retired());
  EXPECT_TRUE(restarted.find(first, kFarDeadline)) << "sessions may be on it";
  const auto all = restarted.list(kFarDeadline).value();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].digest, "");
  EXPECT_EQ(all[1].origin, "unload");
  EXPECT_EQ(publish(1), first) << "the way back";
  EXPECT_EQ(shelf.head()->digest, first);
  EXPECT_FALSE(shelf.retired());
  // What was being learned from it is not published over the retirement.
  ASSERT_TRUE(shelf.retire(kFarDeadline));
  EXPECT_EQ(shelf.publish(cosine_checkpoint(2).bytes(), "online", first, kFarDeadline).error().code,
            ErrorCode::kConflict);
  EXPECT_EQ(shelf.head(), nullptr);
}

TEST_F(PolicyShelfTest, RetiredAgainWhereTheOutcomeWasUnknown) {
  FaultyStore faulty(store);
  DocumentBank through(faulty, clock);
  PolicyShelf unsure(through, clock, cosine_engine());
  ASSERT_TRUE(unsure.publish(cosine_checkpoint(1).bytes(), "file", "", kFarDeadline));
  const int published = faulty.calls(FaultyStore::Call::kPublish);
  const int read = faulty.calls(FaultyStore::Call::kHead) + 1;  // it looks at what is there first
  for (int i = 1; i < 9; ++i) {                                 // however often it tries
    faulty.fail_after(FaultyStore::Call::kPublish, published + i, ErrorCode::kIndeterminate);
    faulty.fail_before(FaultyStore::Call::kHead, read + i, ErrorCode::kUnavailable);
  }
  ASSERT_FALSE(unsure.retire(kFarDeadline));
  ASSERT_NE(unsure.head(), nullptr) << "as it was after an error";
  while (!through.get("policy", "default", "learned", kFarDeadline)) {  // the last of the faults
  }
  ASSERT_TRUE(unsure.retire(kFarDeadline));
  EXPECT_EQ(unsure.head(), nullptr);
}

TEST_F(PolicyShelfTest, TheSameAgainChangesNothing) {
  publish(1);
  publish(1);
  EXPECT_EQ(shelf.list(kFarDeadline).value().size(), 1u);
}

TEST_F(PolicyShelfTest, WhatDoesNotFitIsRefusedAndTheOldStays) {
  const std::string good = publish(1);
  const auto refused = [&](const std::string& bytes, ErrorCode code) {
    const auto made = shelf.publish(bytes, "file", "", kFarDeadline);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, code) << made.error().message;
    EXPECT_EQ(shelf.head()->digest, good);
  };
  const std::string whole = cosine_checkpoint(2).bytes();
  refused(whole.substr(0, whole.size() / 2), ErrorCode::kCorruption);
  Checkpoint other = cosine_checkpoint(2);
  other.feature_version += 1;
  refused(other.bytes(), ErrorCode::kMismatch);
  other = cosine_checkpoint(2);
  other.tensors["scorer.sharpness"].values[0] = std::nanf("");
  refused(other.bytes(), ErrorCode::kCorruption);
  other = cosine_checkpoint(2);
  other.tensors.clear();
  refused(other.bytes(), ErrorCode::kCorruption);
  other = cosine_checkpoint(2);
  other.whitening = {};
  refused(other.bytes(), ErrorCode::kMismatch);
  other = cosine_checkpoint(2);
  other.task.window_tokens = 1000;
  refused(other.bytes(), ErrorCode::kMismatch);
  EXPECT_EQ(shelf.list(kFarDeadline).value().size(), 1u);
}

TEST_F(PolicyShelfTest, OneThatWasReplacedMeanwhileIsNotReplacedAgain) {
  const std::string first = publish(1);
  publish(2);
  const auto late = shelf.publish(cosine_checkpoint(3).bytes(), "online", first, kFarDeadline);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kConflict);
}

// A controller that dies before the payload is written, or before it is published.
TEST_F(PolicyShelfTest, KilledInTheMiddleOfPublishingTheOneBeforeIsThere) {
  const std::string first = publish(1);
  for (const auto call : {FaultyStore::Call::kPut, FaultyStore::Call::kPublish}) {
    FaultyStore faulty(store);
    faulty.fail_before(call, 1, ErrorCode::kIo);
    DocumentBank through(faulty, clock);
    PolicyShelf dying(through, clock, cosine_engine());
    ASSERT_TRUE(dying.load(kFarDeadline));
    EXPECT_FALSE(dying.publish(cosine_checkpoint(2).bytes(), "online", first, kFarDeadline));
    EXPECT_EQ(dying.head()->digest, first);
    PolicyShelf restarted(documents, clock, cosine_engine());
    ASSERT_TRUE(restarted.load(kFarDeadline));
    ASSERT_NE(restarted.head(), nullptr);
    EXPECT_EQ(restarted.head()->digest, first);
  }
}

}  // namespace
}  // namespace memslot
