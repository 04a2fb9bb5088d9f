// Restoring a backup: what goes wrong leaves the target, and whatever bank is there, as they were.
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>
#include <random>
#include <set>

#include "tests/storage/child_process.h"
#include "tests/storage/store_cases.h"
#include "tests/support/file_bytes.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;
using testing_support::random_bytes;
using testing_support::read_all;
using testing_support::TemporaryFolder;
using testing_support::write_all;

// Everything under a folder: path and content.
std::set<std::pair<std::string, std::string>> contents(const fs::path& folder) {
  std::set<std::pair<std::string, std::string>> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    out.emplace(entry.path().lexically_relative(folder),
                entry.is_regular_file() ? read_all(entry.path()) : "");
  }
  return out;
}

// A backup of one bank in `saved_`.
class RestoreTest : public testing::Test {
 protected:
  RestoreTest() {
    const auto store = open(folder_.path() + "/origin");
    EXPECT_TRUE(store->put_payload("t", bytes_, kNoDeadline));
    EXPECT_TRUE(store->compact(kNoDeadline));  // out of the log, into a file
    EXPECT_TRUE(store->publish("r", "", "t", "m", kNoDeadline));
    EXPECT_TRUE(store->backup(saved_, kNoDeadline));
  }
  std::unique_ptr<BankStore> open(const std::string& directory, bool create = true) {
    auto store = open_store(directory, {.create_if_missing = create}, clock_);
    EXPECT_TRUE(store) << (store ? "" : store.error().message);
    return store ? std::move(store).value() : nullptr;
  }
  void expect_restored(const std::string& directory) {
    const auto copy = open(directory, /*create=*/false);
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(copy->get_payload("t", kNoDeadline).value(), bytes_);
    EXPECT_EQ(copy->head("r", kNoDeadline).value().token, "t");
  }
  // The largest file of the backup whose name ends so.
  fs::path file_of_backup(const std::string& suffix) {
    fs::path best;
    for (const auto& entry : fs::recursive_directory_iterator(saved_)) {
      if (!entry.is_regular_file() || !entry.path().string().ends_with(suffix)) continue;
      if (best.empty() || fs::file_size(best) < entry.file_size()) best = entry.path();
    }
    EXPECT_FALSE(best.empty()) << suffix;
    return best;
  }
  // Neither a target nor what it would have been made in.
  void expect_nothing_at(const std::string& target) {
    EXPECT_FALSE(fs::exists(target));
    EXPECT_FALSE(fs::exists(target + ".restoring"));
  }

  SystemClock clock_;
  TemporaryFolder folder_;
  const std::vector<std::byte> bytes_ = random_bytes(300'000);
  const std::string saved_ = folder_.path() + "/saved", target_ = folder_.path() + "/bank";
};

TEST_F(RestoreTest, ARestoredBackupEqualsTheBankAtThatMoment) {
  const auto bytes = random_bytes(100'000);
  const std::string saved = folder_.path() + "/another", restored = folder_.path() + "/restored";
  const auto store = open(target_);
  ASSERT_OK(store->put_payload("t:p", bytes, kNoDeadline));
  ASSERT_OK(store->publish("r", "", "t", "m", kNoDeadline));
  ASSERT_OK(store->publish("r", "t", "u", "m2", kNoDeadline));
  ASSERT_OK(store->backup(saved, kNoDeadline));
  ASSERT_OK(store->publish("later", "", "t", "m", kNoDeadline));  // the bank stays in use
  EXPECT_ERROR(store->backup(saved, kNoDeadline), ErrorCode::kInvalidArgument);
  ASSERT_OK(restore_store(saved, restored));
  const auto copy = open_store(restored, {.create_if_missing = false}, clock_);
  ASSERT_OK(copy);
  EXPECT_EQ(copy.value()->history("r", kNoDeadline).value(),
            store->history("r", kNoDeadline).value());
  EXPECT_EQ(copy.value()->get_payload("t:p", kNoDeadline).value(), bytes);
  EXPECT_ERROR(copy.value()->head("later", kNoDeadline), ErrorCode::kNotFound);
}

TEST_F(RestoreTest, AnAbsentAnEmptyAndASlashedDirectoryAreFilledAndNothingElseIsLeft) {
  ASSERT_OK(restore_store(saved_, target_));
  expect_restored(target_);
  const std::string empty = folder_.path() + "/empty";
  fs::create_directory(empty);
  ASSERT_EQ(::chmod(empty.c_str(), 0700), 0);
  ASSERT_OK(restore_store(saved_, empty + "/"));
  expect_restored(empty);
  EXPECT_EQ(fs::status(empty).permissions(), fs::perms::owner_all) << "as its owner made it";
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"bank", "empty", "origin", "saved"}));
}

TEST_F(RestoreTest, WithoutABackupNothingIsMade) {
  EXPECT_ERROR(restore_store(folder_.path() + "/absent", target_), ErrorCode::kNotFound);
  // A bank is no backup.
  EXPECT_ERROR(restore_store(folder_.path() + "/origin", target_), ErrorCode::kNotFound);
  expect_nothing_at(target_);
}

TEST_F(RestoreTest, ABankThatIsThereStaysAsItIsInEveryByte) {
  open(target_)->publish("mine", "", "a", "m", kNoDeadline).value();
  const auto before = contents(target_);
  EXPECT_ERROR(restore_store(saved_, target_), ErrorCode::kInvalidArgument);
  EXPECT_EQ(contents(target_), before);
  EXPECT_EQ(open(target_)->head("mine", kNoDeadline).value().token, "a");
}

TEST_F(RestoreTest, ABankThatAnotherProcessHoldsGoesOn) {
  ChildProcess holder("hold", target_);
  ASSERT_EQ(holder.line(), "open");
  const auto before = contents(target_);
  EXPECT_ERROR(restore_store(saved_, target_), ErrorCode::kInvalidArgument);
  EXPECT_EQ(contents(target_), before);
}

TEST_F(RestoreTest, AFileAFolderOfOtherThingsAndNoPlaceAtAllAreRefusedAndLeftAlone) {
  for (const char* text : {"", "x"}) {
    write_all(target_, text);
    EXPECT_ERROR(restore_store(saved_, target_), ErrorCode::kInvalidArgument);
    EXPECT_EQ(read_all(target_), text);
    fs::remove(target_);
  }
  fs::create_directory(target_);
  write_all(target_ + "/holiday.jpg", "x");
  EXPECT_ERROR(restore_store(saved_, target_), ErrorCode::kInvalidArgument);
  EXPECT_EQ(contents(target_).size(), 1U);
  for (const char* nowhere : {"", "memory:"})
    EXPECT_ERROR(restore_store(saved_, nowhere), ErrorCode::kInvalidArgument);
}

TEST_F(RestoreTest, ADamagedBackupIsRefusedBeforeTheFirstByteIsWritten) {
  const std::string pristine = folder_.path() + "/pristine";
  fs::rename(saved_, pristine);
  const auto damage = [](const fs::path& file, const std::string& how) {
    std::string bytes = read_all(file);
    if (how == "flipped") bytes[bytes.size() / 2] ^= 1;
    if (how == "cut") bytes.resize(bytes.size() / 2);
    how == "gone" ? static_cast<void>(fs::remove(file)) : write_all(file, bytes);
  };
  // The payloads, the tables, the list of the bank's files, and the backup's own list.
  for (const char* suffix : {".blob", ".sst", "meta/1"}) {
    for (const char* how : {"flipped", "cut", "gone"}) {
      SCOPED_TRACE(std::string(suffix) + " " + how);
      fs::remove_all(saved_);
      fs::copy(pristine, saved_, fs::copy_options::recursive);
      damage(file_of_backup(suffix), how);
      const auto before = contents(saved_);
      const auto refused = restore_store(saved_, target_);
      EXPECT_ERROR(refused, ErrorCode::kCorruption);
      EXPECT_NE(refused.error().message.find(saved_), std::string::npos) << "names the backup";
      EXPECT_EQ(contents(saved_), before);
      expect_nothing_at(target_);
    }
  }
  fs::remove_all(saved_);
  fs::copy(pristine, saved_, fs::copy_options::recursive);
  ASSERT_OK(restore_store(saved_, target_));  // the copy itself is no damage
}

TEST_F(RestoreTest, WhereNothingCanBeMadeTheErrorNamesThePlace) {
  write_all(folder_.path() + "/file", "x");
  for (const std::string parent : {"/file", "/absent"}) {
    const auto refused = restore_store(saved_, folder_.path() + parent + "/bank");
    EXPECT_ERROR(refused, ErrorCode::kIo);
    EXPECT_NE(refused.error().message.find(parent + "/bank"), std::string::npos)
        << refused.error().message;
  }
  EXPECT_EQ(read_all(folder_.path() + "/file"), "x");
  EXPECT_FALSE(fs::exists(folder_.path() + "/absent"));
}

// The limit is the process's, so a child meets it: in the middle of the largest file.
TEST_F(RestoreTest, OneThatFailsInTheMiddleLeavesTheTargetAbsentOrEmptyAndARepeatSucceeds) {
  EXPECT_EQ(ChildProcess("restore", target_).wait(), 0);
  expect_restored(target_);
}

TEST_F(RestoreTest, OneThatWasKilledLeavesTheTargetAloneAndTheNextClearsItsRemainsAway) {
  fs::create_directories(target_ + ".restoring/bank");
  write_all(target_ + ".restoring/bank/000007.sst", "half a table");
  ASSERT_OK(restore_store(saved_, target_));
  expect_restored(target_);
  EXPECT_FALSE(fs::exists(target_ + "/000007.sst"));
  EXPECT_FALSE(fs::exists(target_ + ".restoring"));
}

TEST_F(RestoreTest, TwoAtOnceToOnePlaceAreOneAndABusy) {
  fs::create_directory(target_ + ".restoring");
  {
    ChildProcess other("lock", target_ + ".restoring");
    ASSERT_EQ(other.line(), "locked");
    EXPECT_ERROR(restore_store(saved_, target_), ErrorCode::kBusy);
    EXPECT_TRUE(fs::exists(target_ + ".restoring")) << "the other's";
    EXPECT_FALSE(fs::exists(target_));
  }
  ASSERT_OK(restore_store(saved_, target_));
}

// Small file systems of their own, which only root may mount.
class RestoreOnOtherDisks : public RestoreTest {
 protected:
  bool mount_at(const std::string& at, const char* options) {
    fs::create_directory(at);
    if (::mount("tmpfs", at.c_str(), "tmpfs", 0, options) != 0) return false;
    mounted_ = at;
    return true;
  }
  ~RestoreOnOtherDisks() override {
    if (!mounted_.empty()) ::umount(mounted_.c_str());
  }
  std::string mounted_;
  const std::string disk_ = folder_.path() + "/disk";
};

constexpr const char* kNeedsRoot =
    "SKIPPED: another disk needs the right to mount a tmpfs (run as root)";

TEST_F(RestoreOnOtherDisks, AFullOneIsNoSpaceAndStaysAsItWas) {
  if (!mount_at(disk_, "size=200k")) GTEST_SKIP() << kNeedsRoot;
  EXPECT_ERROR(restore_store(saved_, disk_ + "/bank"), ErrorCode::kNoSpace);
  EXPECT_TRUE(fs::is_empty(disk_));
  fs::create_directory(disk_ + "/bank");
  EXPECT_ERROR(restore_store(saved_, disk_ + "/bank"), ErrorCode::kNoSpace);
  EXPECT_EQ(contents(disk_).size(), 1U);
  EXPECT_TRUE(fs::is_empty(disk_ + "/bank"));
}

TEST_F(RestoreOnOtherDisks, AReadOnlyOneIsRefusedByName) {
  if (!mount_at(disk_, "size=8m")) GTEST_SKIP() << kNeedsRoot;
  ASSERT_EQ(::mount("tmpfs", disk_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0);
  const auto refused = restore_store(saved_, disk_ + "/bank");
  EXPECT_ERROR(refused, ErrorCode::kPermission);
  EXPECT_NE(refused.error().message.find(disk_ + "/bank"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(disk_));
}

TEST_F(RestoreOnOtherDisks, AMountPointItselfIsRefusedWithAWayOut) {
  if (!mount_at(disk_, "size=8m")) GTEST_SKIP() << kNeedsRoot;
  const auto refused = restore_store(saved_, disk_);
  EXPECT_ERROR(refused, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("mount point"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(disk_));
  EXPECT_FALSE(fs::exists(disk_ + ".restoring"));
  ASSERT_OK(restore_store(saved_, disk_ + "/bank"));
  expect_restored(disk_ + "/bank");
}

}  // namespace
}  // namespace memslot
