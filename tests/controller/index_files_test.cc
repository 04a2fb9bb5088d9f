#include "controller/step/index_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <set>

#include "controller/step/index_keeper.h"
#include "shared/files/write_file.h"
#include "tests/controller/memories.h"
#include "tests/support/faulty_store.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;
const std::vector<std::string> kSpaces = {"default", "other"};
constexpr unsigned kMemories = 60;

// Keepers one after another over the same bank, as controllers that are started again.
class IndexFilesTest : public testing::Test {
 protected:
  std::unique_ptr<IndexKeeper> start(std::uint64_t kept_from = 1) {
    auto out = std::make_unique<IndexKeeper>(
        through_.bank(), through_.clock(), [] {}, &documents_, folder(), kept_from);
    reads_ = faulty_.calls(FaultyStore::Call::kGet);
    EXPECT_TRUE(out->build());
    reads_ = faulty_.calls(FaultyStore::Call::kGet) - reads_;
    return out;
  }
  // Payloads that the last start read: the whitening, and the keys of each memory that it read.
  int reads() const { return reads_; }

  void publish(unsigned number, const std::string& ns = "default") {
    through_.publish(
        {.id = numbered(number), .ns = ns, .keys = keys_around(centre_of(number), 6, 0.2f, rng_)});
  }
  void publish_all() {
    for (unsigned i = 0; i < kMemories; ++i) publish(i, kSpaces[i % 2]);
  }
  static std::vector<std::string> answers(IndexKeeper& keeper) {
    std::vector<std::string> out;
    const auto space = SpaceKey::of(slot_signature());
    for (unsigned i = 0; i < kMemories + 5; ++i) {
      const auto query = keeper.index().query(space, centre_of(i));
      const auto hits = keeper.index().nearest(space, kSpaces, query, 12);
      for (const auto& hit : hits) {
        out.push_back(fmt::format("{} {} {} {} {}", hit.memory->version.ref.text(), hit.best_key,
                                  hit.mean_key, hit.memory->uses, hit.memory->published));
      }
    }
    return out;
  }
  // As an index without files answers.
  std::vector<std::string> made_anew() {
    IndexKeeper fresh(
        through_.bank(), through_.clock(), [] {}, &documents_);
    EXPECT_TRUE(fresh.build());
    return answers(fresh);
  }
  std::string folder() const { return temporary_.path() + "/bank.index"; }
  std::vector<fs::path> files() const {
    std::vector<fs::path> out;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder(), none)) out.push_back(entry.path());
    return out;
  }

  bool are_in_files(const std::string& bytes) const {
    EXPECT_FALSE(bytes.empty());
    const auto all = files();
    return std::any_of(all.begin(), all.end(), [&](const fs::path& path) {
      std::ifstream file(path, std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      return text.find(bytes) != std::string::npos;
    });
  }

  std::mt19937 rng_{1};
  testing_support::TemporaryFolder temporary_;
  TestBank bank_;
  FaultyStore faulty_{bank_.store()};
  TestBank through_{&faulty_};
  DocumentBank documents_{faulty_, through_.clock()};
  int reads_ = 0;
};

TEST_F(IndexFilesTest, AStartReadsNoKeysAgain) {
  publish_all();
  through_.bank().note_use({.ns = "other", .id = "m7", .version = 1}, 0.25);
  start();
  EXPECT_GE(reads(), static_cast<int>(kMemories));
  const auto again = start();
  EXPECT_LE(reads(), 1) << "the whitening only";
  EXPECT_EQ(again->index().memories(), kMemories);
  EXPECT_EQ(again->index().keys(), kMemories * 6);
  EXPECT_EQ(answers(*again), made_anew());
}

TEST_F(IndexFilesTest, WhatChangedMeanwhileIsReadAgainAndTheRestIsNot) {
  publish_all();
  start();
  publish(3, "other");          // a second version
  publish(kMemories, "other");  // a new one
  publish(5, "third");          // in a namespace that no file is of
  const auto again = start();
  EXPECT_LE(reads(), 1 + 3);
  EXPECT_EQ(again->index().memories(), kMemories + 2);
  EXPECT_EQ(again->index().find("other", "m3")->version.ref.version, 2u);
  EXPECT_EQ(answers(*again), made_anew());
  again->keep();
  const auto once_more = start();  // too few to be written for their sake
  EXPECT_LE(reads(), 1 + 3);
  EXPECT_EQ(answers(*once_more), made_anew());
}

// It goes on changing as any other does.
TEST_F(IndexFilesTest, WhatWasRestoredCanBeReplacedAndErased) {
  publish_all();
  start();
  const auto again = start();
  publish(4, "default");
  again->changed({.ns = "default", .id = "m4"});
  ASSERT_TRUE(through_.bank().erase({.ns = "other", .id = "m9"}, kFarDeadline));
  again->changed({.ns = "other", .id = "m9"});
  EXPECT_EQ(again->index().find("other", "m9"), nullptr);
  EXPECT_EQ(again->index().keys(), (kMemories - 1) * 6);
  EXPECT_EQ(again->index().find("default", "m4")->version.ref.version, 2u);
  const auto space = SpaceKey::of(slot_signature());
  const auto query = again->index().query(space, centre_of(4));
  EXPECT_EQ(again->index().nearest(space, kSpaces, query, 1)[0].memory->version.ref.text(),
            "default/m4@2");
}

// Of a memory's keys, as they are written.
std::string bytes_in_files(const CandidateIndex& index, const std::string& ns,
                           const std::string& id) {
  std::string out;
  for (const auto& shard : index.shards()) {
    if (shard.ns != ns) continue;
    index.each_kept(shard, [&](const CandidateIndex::Kept& kept) {
      const auto row = shard.keys->reduced().subspan(kept.run.first * kDim, kDim);
      if (kept.id == id) out.assign(reinterpret_cast<const char*>(row.data()), row.size_bytes());
    });
  }
  return out;
}

// Keys tell what a memory was about: they go with it, also where nobody told the index.
TEST_F(IndexFilesTest, NothingOfAnErasedMemoryStays) {
  publish_all();
  auto keeper = start();
  const std::string gone = bytes_in_files(keeper->index(), "default", "m2");
  const std::string gone_later = bytes_in_files(keeper->index(), "other", "m1");
  EXPECT_TRUE(are_in_files(gone));
  EXPECT_TRUE(are_in_files(gone_later));
  ASSERT_TRUE(through_.bank().erase({.ns = "default", .id = "m2"}, kFarDeadline));
  keeper->changed({.ns = "default", .id = "m2"});
  EXPECT_TRUE(files().empty());
  keeper->keep();
  EXPECT_FALSE(are_in_files(gone));
  EXPECT_TRUE(are_in_files(gone_later));
  EXPECT_EQ(answers(*start()), made_anew());

  ASSERT_TRUE(through_.bank().erase({.ns = "other", .id = "m1"}, kFarDeadline));  // while away
  EXPECT_EQ(start()->index().find("other", "m1"), nullptr);
  EXPECT_FALSE(files().empty());
  EXPECT_FALSE(are_in_files(gone_later));

  // What was never there takes nothing along.
  keeper = start();
  const auto before = files();
  keeper->changed({.ns = "default", .id = "m2"});
  keeper->changed({.ns = "default", .id = "nobody"});
  EXPECT_EQ(files(), before);
  for (unsigned i = 0; i < kMemories; ++i) {
    for (const std::string& ns : kSpaces) {
      static_cast<void>(through_.bank().erase({.ns = ns, .id = numbered(i)}, kFarDeadline));
    }
  }
  EXPECT_EQ(start()->index().memories(), 0u);
  EXPECT_TRUE(files().empty());
}

TEST_F(IndexFilesTest, OtherStatisticsMakeItAnew) {
  publish_all();
  start();
  IndexKeeper pinned(
      through_.bank(), through_.clock(), [] {}, &documents_, folder(), 1);
  std::vector<float> rows;
  for (unsigned i = 0; i < 40; ++i) {
    const auto row = centre_of(100 + i);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  const auto pin = std::make_shared<CandidateIndex::Pinned>(
      CandidateIndex::Pinned{"", -1, Whitening::fit(rows, kDim, 9)});
  pinned.pin(pin);
  ASSERT_TRUE(pinned.build());
  EXPECT_EQ(pinned.index().memories(), kMemories);
  EXPECT_FALSE(pinned.index().differs_from(pin.get()));
  // And kept so: pinned statistics are known before the first key.
  IndexKeeper again(
      through_.bank(), through_.clock(), [] {}, &documents_, folder(), 1);
  again.pin(pin);
  const int before = faulty_.calls(FaultyStore::Call::kGet);
  ASSERT_TRUE(again.build());
  EXPECT_LE(faulty_.calls(FaultyStore::Call::kGet) - before, 1);
  EXPECT_EQ(answers(again), answers(pinned));
}

TEST_F(IndexFilesTest, AFewKeysAreNotKept) {
  publish_all();
  start(/*kept_from=*/kMemories * 6 + 1);
  EXPECT_TRUE(files().empty());
  start(/*kept_from=*/kMemories * 6);
  EXPECT_FALSE(files().empty());
  start(/*kept_from=*/kMemories * 6 + 1)->keep();
  EXPECT_TRUE(files().empty());
}

// One that changed is read by the next start; writing all of it again would take longer.
TEST_F(IndexFilesTest, IsWrittenAgainOnceMuchOfItIsOther) {
  publish_all();
  auto keeper = start();
  const auto before = files();
  for (unsigned i = 0; i < 6; i += 2) {
    publish(i, "default");
    keeper->changed({.ns = "default", .id = numbered(i)});
  }
  keeper->keep();
  EXPECT_EQ(files(), before);
  for (unsigned i = 6; i < 16; i += 2) {
    publish(i, "default");
    keeper->changed({.ns = "default", .id = numbered(i)});
  }
  keeper->keep();
  EXPECT_NE(files(), before);
  EXPECT_EQ(answers(*start()), made_anew());
  EXPECT_LE(reads(), 1);
}

TEST_F(IndexFilesTest, OnlyTheirOwnerMayReadThem) {
  publish_all();
  start();
  ASSERT_FALSE(files().empty());
  constexpr auto kOthers = fs::perms::group_all | fs::perms::others_all;
  for (fs::path path : files()) {
    EXPECT_EQ(fs::status(path).permissions() & kOthers, fs::perms::none) << path;
  }
  EXPECT_EQ(fs::status(folder()).permissions() & kOthers, fs::perms::none);
}

// Every file cut off, with a byte changed, empty, or gone: made from the bank, and kept again.
TEST_F(IndexFilesTest, DamagedFilesCostOnlyTime) {
  publish_all();
  start();
  const std::size_t count = files().size();
  ASSERT_EQ(count, 1 + 2 * 3u);
  const auto want = made_anew();
  for (std::size_t i = 0; i < count; ++i) {
    for (const char* damage : {"cut", "byte", "empty", "gone"}) {
      auto all = files();
      std::sort(all.begin(), all.end());
      ASSERT_EQ(all.size(), count);
      const fs::path& path = all[i];
      const auto size = fs::file_size(path);
      if (damage == std::string("cut")) fs::resize_file(path, size / 2);
      if (damage == std::string("empty")) fs::resize_file(path, 0);
      if (damage == std::string("gone")) fs::remove(path);
      if (damage == std::string("byte")) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(size / 2));
        file.put('\xa5');
      }
      const auto keeper = start();
      EXPECT_EQ(answers(*keeper), want) << path << " " << damage;
      EXPECT_GE(reads(), static_cast<int>(kMemories) / 2) << path << " " << damage;
      EXPECT_EQ(files().size(), count) << "kept again";
    }
  }
}

TEST_F(IndexFilesTest, AFolderThatCannotBeWrittenCostsOnlyTime) {
  publish_all();
  ASSERT_TRUE(write_file(folder(), "a file where the folder should be"));
  const auto keeper = start();
  EXPECT_EQ(keeper->index().memories(), kMemories);
  keeper->keep();
  EXPECT_EQ(start()->index().memories(), kMemories);
}

// The last step of a save fails: what it wrote before goes.
TEST_F(IndexFilesTest, ASaveThatFailsLeavesNothingBehind) {
  fs::create_directories(folder() + "/memslot-index.json/in the way");
  publish_all();
  EXPECT_EQ(start()->index().memories(), kMemories);
  EXPECT_EQ(files().size(), 1u);
}

// What a killed save left behind goes, beside a whole copy, too; what is not ours stays.
TEST_F(IndexFilesTest, LeavesWhatIsNotItsOwn) {
  fs::create_directories(folder());
  publish_all();
  for (const bool beside : {false, true}) {
    for (const char* name : {"123-0.white", "123-0.white.part", "memslot-index.json.part",
                             "notes.txt", "index.json", "123-0.whitening", "x-0.white"}) {
      ASSERT_TRUE(write_file(folder() + "/" + name, "?"));
    }
    start();
    EXPECT_EQ(reads() <= 1, beside);
    std::set<std::string> names;
    for (const fs::path& path : files()) names.insert(path.filename().string());
    EXPECT_EQ(names.size(), 7 + 4u);
    EXPECT_TRUE(names.contains("memslot-index.json"));
    for (const char* name : {"notes.txt", "index.json", "123-0.whitening", "x-0.white"}) {
      EXPECT_TRUE(names.contains(name)) << name;
    }
  }
}

}  // namespace
}  // namespace memslot
