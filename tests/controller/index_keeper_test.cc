#include "controller/step/index_keeper.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "tests/controller/memories.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

const std::vector<std::string> kDefault = {"default"};

class Signal {
 public:
  void raise() {
    const std::lock_guard lock(mutex_);
    ++raised_;
    changed_.notify_all();
  }
  bool wait(int times) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(5), [&] { return raised_ >= times; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int raised_ = 0;
};

class IndexKeeperTest : public testing::Test {
 protected:
  std::string nearest(IndexKeeper& keeper, unsigned number) {
    const auto space = SpaceKey::of(slot_signature());
    const auto query = keeper.index().query(space, centre_of(number));
    const auto hits = keeper.index().nearest(space, kDefault, query, 1);
    return hits.empty() ? "" : hits[0].memory->version.ref.text();
  }
  MemoryVersion publish(unsigned number, int rows = 6) {
    return bank_.publish({.id = numbered(static_cast<unsigned>(number)),
                          .keys = keys_around(centre_of(number), rows, 0.2f, rng_)});
  }
  std::mt19937 rng_{1};
  TestBank bank_;
  Signal ready_;
  IndexKeeper keeper_{bank_.bank(), bank_.clock(), [this] { ready_.raise(); }};
};

TEST_F(IndexKeeperTest, IsMadeFromTheBankAtTheStart) {
  for (unsigned i = 0; i < 10; ++i) publish(i);
  bank_.bank().note_use({.ns = "default", .id = "m3", .version = 1}, 0.25);
  ASSERT_TRUE(keeper_.build());
  EXPECT_EQ(keeper_.index().memories(), 10u);
  EXPECT_EQ(keeper_.index().keys(), 60u);
  EXPECT_EQ(nearest(keeper_, 7), "default/m7@1");
  EXPECT_EQ(keeper_.index().find("default", "m3")->uses, 1u);
  EXPECT_FALSE(keeper_.index().refit_due());
}

TEST_F(IndexKeeperTest, FollowsPublishesAndErasures) {
  for (unsigned i = 0; i < 10; ++i) publish(i);
  ASSERT_TRUE(keeper_.build());
  const auto second =
      bank_.publish({.id = "m4", .keys = keys_around(centre_of(44), 6, 0.2f, rng_)});
  keeper_.changed(second.ref);
  EXPECT_EQ(nearest(keeper_, 44), "default/m4@2");
  ASSERT_TRUE(bank_.bank().erase({.ns = "default", .id = "m4"}, kFarDeadline));
  keeper_.changed({.ns = "default", .id = "m4"});
  EXPECT_EQ(keeper_.index().memories(), 9u);
  EXPECT_NE(nearest(keeper_, 44), "default/m4@2");
}

TEST_F(IndexKeeperTest, FitsAnewInTheBackgroundAndMissesNoChangeMeanwhile) {
  publish(0);
  ASSERT_TRUE(keeper_.build());
  const auto space = SpaceKey::of(slot_signature());
  const std::uint64_t before = keeper_.index().whitening(space)->version();
  for (unsigned i = 1; i < 8; ++i) keeper_.changed(publish(i).ref);  // a build begins at the first
  // Each build may have begun before the last memory came; another follows while one is due.
  int builds = 0;
  do {
    ASSERT_TRUE(ready_.wait(++builds));
    ASSERT_TRUE(keeper_.adopt());
  } while (keeper_.index().refit_due());
  EXPECT_GT(keeper_.index().whitening(space)->version(), before);
  EXPECT_EQ(keeper_.index().memories(), 8u);
  EXPECT_FALSE(keeper_.index().refit_due());
  for (unsigned i = 0; i < 8; ++i)
    EXPECT_EQ(nearest(keeper_, i), std::string("default/").append(numbered(i)).append("@1"));
}

TEST_F(IndexKeeperTest, EqualsAFreshBuildAfterARebuildOnDemand) {
  for (unsigned i = 0; i < 12; ++i) publish(i);
  ASSERT_TRUE(keeper_.build());
  keeper_.rebuild();
  ASSERT_TRUE(ready_.wait(1));
  ASSERT_TRUE(keeper_.adopt());
  EXPECT_FALSE(keeper_.adopt());
  IndexKeeper fresh(bank_.bank(), bank_.clock(), [] {});
  ASSERT_TRUE(fresh.build());
  const auto space = SpaceKey::of(slot_signature());
  for (unsigned i = 0; i < 12; ++i) {
    const auto query = centre_of(i);
    const auto a =
        keeper_.index().nearest(space, kDefault, keeper_.index().query(space, query), 12);
    const auto b = fresh.index().nearest(space, kDefault, fresh.index().query(space, query), 12);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t j = 0; j < a.size(); ++j) {
      EXPECT_EQ(a[j].memory->version.ref, b[j].memory->version.ref);
      EXPECT_EQ(a[j].best_key, b[j].best_key);
      EXPECT_EQ(a[j].mean_key, b[j].mean_key);
    }
  }
}

struct FaultyKeeperTest : IndexKeeperTest {
  void fail(FaultyStore::Call call, ErrorCode code, int ahead = 1) {
    faulty.fail_before(call, faulty.calls(call) + ahead, code);
  }
  MemoryVersion moved(unsigned number, unsigned to) {
    return bank_.publish(
        {.id = numbered(number), .keys = keys_around(centre_of(to), 6, 0.2f, rng_)});
  }
  FaultyStore faulty{bank_.store()};
  TestBank through{&faulty};
  Signal built;
  IndexKeeper keeper{through.bank(), through.clock(), [this] { built.raise(); }};
};

// A bank that is slow for a moment must not cost a memory its place until it changes again.
TEST_F(FaultyKeeperTest, ReadsAgainWhatCouldNotBeRead) {
  for (unsigned i = 0; i < 6; ++i) publish(i);
  ASSERT_TRUE(keeper.build());
  const MemoryVersion second = moved(4, 44);
  fail(FaultyStore::Call::kHead, ErrorCode::kTimeout);
  keeper.changed(second.ref);
  EXPECT_NE(nearest(keeper, 44), "default/m4@2");
  keeper.retry();
  EXPECT_NE(nearest(keeper, 44), "default/m4@2") << "too soon";
  through.clock().advance(IndexKeeper::kRetryAfter);
  fail(FaultyStore::Call::kGet, ErrorCode::kUnavailable);  // now its keys cannot be read
  keeper.retry();
  EXPECT_EQ(keeper.index().find("default", "m4")->version.ref.version, 2u);
  EXPECT_NE(nearest(keeper, 44), "default/m4@2");
  through.clock().advance(2 * IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(nearest(keeper, 44), "default/m4@2");

  const MemoryVersion third = moved(4, 55);
  fail(FaultyStore::Call::kGet, ErrorCode::kCorruption);  // does not pass
  keeper.changed(third.ref);
  const int reads = faulty.calls(FaultyStore::Call::kHead);
  through.clock().advance(IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(faulty.calls(FaultyStore::Call::kHead), reads);
}

TEST_F(FaultyKeeperTest, OneThatAlwaysFailsHoldsUpNoOther) {
  for (unsigned i = 0; i < 6; ++i) publish(i);
  ASSERT_TRUE(keeper.build());
  for (const unsigned i : {1u, 2u}) {
    const auto version = moved(i, 40 + i);
    fail(FaultyStore::Call::kHead, ErrorCode::kIo);
    keeper.changed(version.ref);
  }
  through.clock().advance(IndexKeeper::kRetryAfter);
  fail(FaultyStore::Call::kHead, ErrorCode::kIo);
  keeper.retry();
  through.clock().advance(IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(keeper.index().find("default", "m2")->version.ref.version, 1u) << "it waits longer now";
  through.clock().advance(IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(keeper.index().find("default", "m1")->version.ref.version, 1u);
  EXPECT_EQ(nearest(keeper, 42), "default/m2@2");
}

TEST_F(FaultyKeeperTest, ABuildThatFailedIsMadeAgain) {
  for (unsigned i = 0; i < 6; ++i) publish(i);
  ASSERT_TRUE(keeper.build());
  fail(FaultyStore::Call::kList, ErrorCode::kTimeout);
  keeper.rebuild();
  ASSERT_TRUE(built.wait(1));
  ASSERT_TRUE(keeper.adopt());
  keeper.retry();
  EXPECT_EQ(keeper.builds(), 2u) << "too soon";
  through.clock().advance(IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(keeper.builds(), 3u);
  ASSERT_TRUE(built.wait(2));
  ASSERT_TRUE(keeper.adopt());
  through.clock().advance(IndexKeeper::kRetryAtMost);
  keeper.retry();
  EXPECT_EQ(keeper.builds(), 3u) << "it was made";
}

TEST_F(FaultyKeeperTest, KeysThatABuildCouldNotReadAreReadAgain) {
  for (unsigned i = 0; i < 6; ++i) publish(i);
  fail(FaultyStore::Call::kGet, ErrorCode::kTimeout, 7);  // six are for the statistics
  ASSERT_TRUE(keeper.build());
  EXPECT_EQ(keeper.index().keys(), 30u);
  through.clock().advance(IndexKeeper::kRetryAfter);
  keeper.retry();
  EXPECT_EQ(keeper.index().keys(), 36u);
}

TEST_F(IndexKeeperTest, EndsWhileABuildIsUnderWay) {
  for (unsigned i = 0; i < 30; ++i) publish(i);
  ASSERT_TRUE(keeper_.build());
  IndexKeeper other(bank_.bank(), bank_.clock(), [] {});
  other.rebuild();
}

// What a restarted controller answers must not depend on what was learned since the last fit.
TEST_F(IndexKeeperTest, ARestartComparesKeysAsBefore) {
  DocumentBank documents(bank_.store(), bank_.clock());
  IndexKeeper first(
      bank_.bank(), bank_.clock(), [] {}, &documents);
  for (unsigned i = 0; i < 20; ++i) publish(i);
  ASSERT_TRUE(first.build());
  for (unsigned i = 20; i < 24; ++i) first.changed(publish(i).ref);  // a fifth more: no new fit
  const auto space = SpaceKey::of(slot_signature());
  const std::string before = first.index().whitening_digest(space);
  IndexKeeper second(
      bank_.bank(), bank_.clock(), [] {}, &documents);
  ASSERT_TRUE(second.build());
  EXPECT_EQ(second.index().whitening_digest(space), before);
  EXPECT_EQ(second.index().whitening(space)->fitted_rows(), 120u);
  EXPECT_EQ(nearest(second, 22), "default/m22@1");
  IndexKeeper forgetful(bank_.bank(), bank_.clock(), [] {});
  ASSERT_TRUE(forgetful.build());
  EXPECT_NE(forgetful.index().whitening_digest(space), before);
}

TEST_F(IndexKeeperTest, KeysThatHaveOutgrownTheKeptStatisticsAreFittedAnew) {
  DocumentBank documents(bank_.store(), bank_.clock());
  const auto space = SpaceKey::of(slot_signature());
  std::string before;
  {
    IndexKeeper first(
        bank_.bank(), bank_.clock(), [] {}, &documents);
    for (unsigned i = 0; i < 8; ++i) publish(i, 12);
    ASSERT_TRUE(first.build());
    before = first.index().whitening_digest(space);
  }
  for (unsigned i = 8; i < 16; ++i) publish(i, 12);
  for (int start = 0; start < 2; ++start) {
    IndexKeeper next(
        bank_.bank(), bank_.clock(), [] {}, &documents);
    ASSERT_TRUE(next.build());
    EXPECT_EQ(next.index().whitening(space)->fitted_rows(), 192u);
    EXPECT_NE(next.index().whitening_digest(space), before);
  }
}

TEST_F(IndexKeeperTest, StatisticsOfFewKeysAreNotKept) {
  DocumentBank documents(bank_.store(), bank_.clock());
  IndexKeeper keeper(
      bank_.bank(), bank_.clock(), [] {}, &documents);
  publish(1);
  ASSERT_TRUE(keeper.build());
  keeper.changed(publish(2).ref);
  EXPECT_TRUE(documents.list("whitening", "index", "", 10, kFarDeadline).value().documents.empty());
}

TEST_F(IndexKeeperTest, KeptStatisticsThatCannotBeReadAreFittedAnew) {
  DocumentBank documents(bank_.store(), bank_.clock());
  for (unsigned i = 0; i < 8; ++i) publish(i, 12);
  const auto space = SpaceKey::of(slot_signature());
  std::string before;
  {
    IndexKeeper first(
        bank_.bank(), bank_.clock(), [] {}, &documents);
    ASSERT_TRUE(first.build());
    before = first.index().whitening_digest(space);
  }
  const auto kept = documents.list("whitening", "index", "", 10, kFarDeadline).value().documents;
  ASSERT_EQ(kept.size(), 1u);
  for (const char* blob : {"", "no tensors", "\x08\0\0\0\0\0\0\0{}      "}) {
    const auto now = documents.get("whitening", "index", kept[0].name, kFarDeadline).value();
    DocumentDraft draft;
    draft.expected = now.token;
    draft.json = R"({"fitted_rows":96,"version":1})";
    draft.blob = std::as_bytes(std::span(blob, std::char_traits<char>::length(blob)));
    ASSERT_TRUE(documents.put("whitening", "index", kept[0].name, draft, kFarDeadline));
    IndexKeeper next(
        bank_.bank(), bank_.clock(), [] {}, &documents);
    ASSERT_TRUE(next.build());
    EXPECT_EQ(next.index().whitening_digest(space), before);
    EXPECT_EQ(nearest(next, 5), "default/m5@1");
  }
}

}  // namespace
}  // namespace memslot
