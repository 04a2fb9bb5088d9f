#include "generator/slot/resident_set.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "shared/base/digest.h"
#include "tests/slot/payloads.h"
#include "tests/slot/tiny_slot.h"

namespace memslot {
namespace {

using namespace testing_support;

ResidentKey key(std::uint64_t version) { return {0, MemoryRef{"default", "m", version}}; }

// Memories of one size, made once; the set only counts their bytes.
class ResidentSets : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = new TinySlot();
    size_ = memory()->bytes();
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  static std::shared_ptr<const LoadedMemory> memory() {
    return must(model_->load(random_mlp(model_->signature(MemoryKind::kMlp), DType::kF32)));
  }
  static TinySlot* model_;
  static std::size_t size_;
};
TinySlot* ResidentSets::model_ = nullptr;
std::size_t ResidentSets::size_ = 0;

TEST_F(ResidentSets, TheLeastRecentlyUsedGoesFirst) {
  ResidentSet set(2 * size_);
  must(set.insert(key(1), memory()));
  must(set.insert(key(2), memory()));
  EXPECT_NE(set.find(key(1)), nullptr);  // touched: 2 is now the older one
  must(set.insert(key(3), memory()));
  EXPECT_NE(set.find(key(1)), nullptr);
  EXPECT_EQ(set.find(key(2)), nullptr);
  EXPECT_EQ(set.evictions(), 1u);
  EXPECT_EQ(set.bytes(), 2 * size_);
  EXPECT_EQ(set.size(), 2u);
}

TEST_F(ResidentSets, PinnedAndHeldMemoriesAreNotEvicted) {
  ResidentSet set(2 * size_);
  must(set.insert(key(1), memory()));
  set.pin(key(1));
  must(set.insert(key(2), memory()));
  const auto held = set.find(key(2));  // as an active slot holds it
  const Status full = set.insert(key(3), memory());
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(set.size(), 2u) << "a refused insertion evicts nothing";
  set.unpin(key(1));
  must(set.insert(key(3), memory()));
  EXPECT_EQ(set.find(key(1)), nullptr);
}

TEST_F(ResidentSets, RefusesWhatIsLargerThanTheBudget) {
  ResidentSet set(size_ - 1);
  EXPECT_EQ(set.insert(key(1), memory()).error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(set.bytes(), 0u);
}

TEST_F(ResidentSets, InsertingAgainReplacesAndCountsOnce) {
  ResidentSet set(size_);
  must(set.insert(key(1), memory()));
  const auto epoch = set.changes_since(0).epoch;
  must(set.insert(key(1), memory()));
  EXPECT_EQ(set.bytes(), size_);
  EXPECT_EQ(set.changes_since(0).epoch, epoch);
}

TEST_F(ResidentSets, ChangesSinceAnEpochGiveTheSameSetToAReceiver) {
  ResidentSet set(3 * size_);
  std::vector<ResidentKey> mirror;
  std::uint64_t epoch = 0;
  const auto sync = [&] {
    const ResidentChanges c = set.changes_since(epoch);
    if (c.base_epoch == 0) mirror.clear();
    for (const auto& k : c.removed) std::erase(mirror, k);
    for (const auto& k : c.added) {
      std::erase(mirror, k);
      mirror.push_back(k);
    }
    epoch = c.epoch;
    std::ranges::sort(mirror);
  };
  for (std::uint64_t i = 1; i <= 40; ++i) {
    must(set.insert(key(1 + i * i % 11), memory()));
    if (i % 5 == 0) set.erase(key(1 + i % 11));
    if (i % 3 != 0) continue;
    sync();
    auto whole = set.changes_since(0);
    EXPECT_EQ(whole.base_epoch, 0u);
    std::ranges::sort(whole.added);
    EXPECT_EQ(mirror, whole.added) << "after " << i << " changes";
  }
  EXPECT_TRUE(set.changes_since(set.changes_since(0).epoch).added.empty());
}

TEST_F(ResidentSets, AnEpochFromAnotherLifeIsAnsweredWithTheWholeSet) {
  ResidentSet set(3 * size_);
  must(set.insert(key(1), memory()));
  const auto answer = set.changes_since(1000000);
  EXPECT_EQ(answer.base_epoch, 0u);
  EXPECT_EQ(answer.added.size(), 1u);
}

}  // namespace
}  // namespace memslot
