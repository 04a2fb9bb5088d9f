// What is particular to the engine on disk: reopening, damage, locks, formats, full disks, backups.
#include "storage/rocksdb_store.h"

#include <rocksdb/db.h>  // DB, to write what a later build might
#include <sys/mount.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "storage/bank_format.h"
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

// Flips one bit at the first place in a file of this extension where `needle` stands.
bool damage(const std::string& directory, const std::string& extension, std::string_view needle) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != extension) continue;
    std::string bytes = read_all(entry.path());
    const auto at = bytes.find(needle);
    if (at == std::string::npos) continue;
    bytes[at + needle.size() / 2] ^= 1;
    write_all(entry.path(), bytes);
    return true;
  }
  return false;
}

std::string_view text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class RocksdbStoreTest : public testing::Test {
 protected:
  Result<std::unique_ptr<BankStore>> try_open(const StoreOptions& options = {}) {
    return open_store(bank_, options, clock_);
  }
  std::unique_ptr<BankStore> open(const StoreOptions& options = {}) {
    auto store = try_open(options);
    EXPECT_TRUE(store) << (store ? "" : store.error().message);
    return store ? std::move(store).value() : nullptr;
  }
  SystemClock clock_;
  TemporaryFolder folder_;
  const std::string bank_ = folder_.path() + "/bank";
};

TEST_F(RocksdbStoreTest, EverythingIsThereAfterReopening) {
  const auto bytes = random_bytes(100'000);
  {
    const auto store = open();
    ASSERT_OK(store->put_payload("t:p", bytes, kNoDeadline));
    ASSERT_OK(store->publish("r", "", "t", "m", kNoDeadline));
    ASSERT_OK(store->publish("gone", "", "t", "m", kNoDeadline));
    ASSERT_OK(store->erase("gone", "", kNoDeadline));
  }
  const auto store = open({.create_if_missing = false});
  EXPECT_EQ(store->get_payload("t:p", kNoDeadline).value(), bytes);
  EXPECT_EQ(store->head("r", kNoDeadline).value(), (RecordVersion{"t", "", 1, "m"}));
  const auto usage = store->usage(kNoDeadline).value();
  EXPECT_EQ(usage.payload_bytes, bytes.size());
  EXPECT_EQ(usage.records, 1U);
  EXPECT_GT(usage.disk_bytes, bytes.size());
  EXPECT_EQ(store->publish("gone", "", "t2", "m", kNoDeadline).value().number, 2U);
}

TEST_F(RocksdbStoreTest, AnAbsentBankIsNotFoundUnlessItMayBeMade) {
  EXPECT_ERROR(try_open({.create_if_missing = false}), ErrorCode::kNotFound);
  EXPECT_FALSE(fs::exists(bank_));
}

TEST_F(RocksdbStoreTest, ADirectoryOfOtherThingsAndAFileAreRefusedAndLeftAlone) {
  fs::create_directory(bank_);
  write_all(bank_ + "/holiday.jpg", "x");
  EXPECT_ERROR(try_open(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(std::distance(fs::directory_iterator(bank_), fs::directory_iterator()), 1);
  write_all(folder_.path() + "/file", "x");
  EXPECT_ERROR(open_store(folder_.path() + "/file", {}, clock_), ErrorCode::kInvalidArgument);
  EXPECT_ERROR(open_store("", {}, clock_), ErrorCode::kInvalidArgument);
}

TEST_F(RocksdbStoreTest, ABankHeldByAnotherProcessIsBusyAndNamesIt) {
  ChildProcess holder("hold", bank_);
  ASSERT_EQ(holder.line(), "open");
  const auto refused = try_open();
  EXPECT_ERROR(refused, ErrorCode::kBusy);
  EXPECT_NE(refused.error().message.find(std::to_string(holder.pid())), std::string::npos)
      << refused.error().message;
  holder.kill_and_wait();
  open();  // free again, though the child did not close the bank
}

TEST_F(RocksdbStoreTest, ASecondOpeningInThisProcessIsBusyToo) {
  const auto store = open();
  EXPECT_ERROR(try_open(), ErrorCode::kBusy);
}

TEST_F(RocksdbStoreTest, AnUnknownFormatVersionIsRefused) {
  EXPECT_TRUE(bank_format::check_format(bank_format::encode_format(1)));
  EXPECT_ERROR(bank_format::check_format("memslot-bank 2 77"), ErrorCode::kNotSupported);
  EXPECT_ERROR(bank_format::check_format("memslot-bank 99999999999999 77"), ErrorCode::kCorruption);
  EXPECT_ERROR(bank_format::check_format("memslot-bank x 77"), ErrorCode::kCorruption);
  EXPECT_ERROR(bank_format::check_format("something"), ErrorCode::kCorruption);
  EXPECT_ERROR(bank_format::check_format(""), ErrorCode::kCorruption);
}

// A bank as a later build might write it.
TEST_F(RocksdbStoreTest, ABankOfALaterFormatIsRefusedAndLeftAsItWas) {
  open().reset();
  const auto change = [&](const std::string& value) {
    std::vector<rocksdb::ColumnFamilyHandle*> families;
    rocksdb::DB* opened = nullptr;
    ASSERT_TRUE(
        rocksdb::DB::Open({}, bank_, {{"default", {}}, {"payload", {}}}, &families, &opened).ok());
    const std::unique_ptr<rocksdb::DB> db(opened);
    ASSERT_TRUE(db->Put({}, families[0], "F", value).ok());
    if (value == "families") {
      rocksdb::ColumnFamilyHandle* more = nullptr;
      ASSERT_TRUE(db->CreateColumnFamily({}, "later", &more).ok());
      families.push_back(more);
    }
    for (auto* family : families) ASSERT_TRUE(db->DestroyColumnFamilyHandle(family).ok());
  };
  change("memslot-bank 2 1790000000000");
  const auto refused = try_open();
  EXPECT_ERROR(refused, ErrorCode::kNotSupported);
  EXPECT_NE(refused.error().message.find("expected version 1, found 2"), std::string::npos);
  change("memslot-bank 1 1790000000000");
  open().reset();
  change("families");
  EXPECT_ERROR(try_open(), ErrorCode::kNotSupported);
}

TEST_F(RocksdbStoreTest, DamagedPayloadBytesAreDetectedAtEveryReadAndOthersStillRead) {
  const auto bytes = random_bytes(200'000);
  {
    const auto store = open();
    ASSERT_OK(store->put_payload("bad", bytes, kNoDeadline));
    ASSERT_OK(
        store->put_payload("small", bytes_of("a small payload, kept in the table"), kNoDeadline));
    ASSERT_OK(store->put_payload("good", bytes_of(std::string(5000, 'g')), kNoDeadline));
  }
  ASSERT_TRUE(damage(bank_, ".blob", text_of(bytes).substr(1000, 64)));
  const auto store = open();
  const auto read = store->get_payload("bad", kNoDeadline);
  EXPECT_ERROR(read, ErrorCode::kCorruption);
  EXPECT_NE(read.error().message.find("XXH3"), std::string::npos) << read.error().message;
  EXPECT_ERROR(store->get_payload("bad", kNoDeadline), ErrorCode::kCorruption);
  ASSERT_OK(store->get_payload("good", kNoDeadline));
  ASSERT_OK(store->get_payload("small", kNoDeadline));
}

TEST_F(RocksdbStoreTest, DamageInTheTableOfSmallPayloadsIsDetected) {
  {
    const auto store = open();
    ASSERT_OK(
        store->put_payload("small", bytes_of("a small payload, kept in the table"), kNoDeadline));
  }
  ASSERT_TRUE(damage(bank_, ".sst", "a small payload, kept in the table"));
  const auto store = try_open();
  if (!store) {
    EXPECT_ERROR(store, ErrorCode::kCorruption);
    return;
  }
  EXPECT_ERROR(store.value()->get_payload("small", kNoDeadline), ErrorCode::kCorruption);
}

TEST_F(RocksdbStoreTest, ALostBlobFileIsCorruptionNotAnEmptyPayload) {
  {
    const auto store = open();
    ASSERT_OK(store->put_payload("t", random_bytes(50'000), kNoDeadline));
  }
  for (const auto& entry : fs::directory_iterator(bank_)) {
    if (entry.path().extension() == ".blob") fs::remove(entry.path());
  }
  const auto store = try_open();
  if (!store) {
    EXPECT_ERROR(store, ErrorCode::kCorruption);
    return;
  }
  const auto read = store.value()->get_payload("t", kNoDeadline);
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().code, ErrorCode::kNotFound);
}

TEST_F(RocksdbStoreTest, ADamagedManifestIsCorruption) {
  open().reset();
  for (const auto& entry : fs::directory_iterator(bank_)) {
    if (entry.path().filename().string().starts_with("MANIFEST-"))
      write_all(entry.path(), "garbage");
  }
  EXPECT_ERROR(try_open(), ErrorCode::kCorruption);
}

TEST_F(RocksdbStoreTest, DamageInsideTheLogIsCorruptionNeverASilentLossOfLaterVersions) {
  ASSERT_EQ(ChildProcess("log", bank_).wait(), 0);
  ASSERT_TRUE(damage(bank_, ".log", "token3"));
  EXPECT_ERROR(try_open(), ErrorCode::kCorruption);
}

TEST_F(RocksdbStoreTest, CompactionTakesErasedBytesOffTheDisk) {
  const std::string secret = "the secret text of an erased source, long enough to be found";
  const std::string big = secret + std::string(5000, 'x');
  const auto store = open();
  ASSERT_OK(store->put_payload("small", bytes_of(secret), kNoDeadline));
  ASSERT_OK(store->put_payload("big", bytes_of(big), kNoDeadline));
  ASSERT_OK(store->put_payload("kept", bytes_of(std::string(5000, 'k')), kNoDeadline));
  EXPECT_EQ(store->usage(kNoDeadline).value().compactions, 0u);
  ASSERT_OK(store->compact(kNoDeadline));
  EXPECT_GT(store->usage(kNoDeadline).value().compactions, 0u);
  const auto on_disk = [&] {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(bank_)) {
      files += read_all(entry.path()).find(secret) != std::string::npos;
    }
    return files;
  };
  ASSERT_GT(on_disk(), 0);
  ASSERT_OK(store->erase_payload("small", kNoDeadline));
  ASSERT_OK(store->erase_payload("big", kNoDeadline));
  ASSERT_OK(store->compact(kNoDeadline));
  EXPECT_EQ(on_disk(), 0);
  ASSERT_OK(store->get_payload("kept", kNoDeadline));
}

TEST_F(RocksdbStoreTest, AFailedBackupLeavesTheDirectoryAsItWasSoThatARepeatSucceeds) {
  EXPECT_EQ(ChildProcess("backup", bank_).wait(), 0);
  ASSERT_OK(restore_store(bank_ + "-saved", folder_.path() + "/restored"));
}

// The log itself cannot be written: the outcome is unknown, the old head stays, and once the cause
// is gone the same publish succeeds. In a child, because the limit is the process's.
TEST_F(RocksdbStoreTest, AFailedLogWriteIsIndeterminateAndWritingResumes) {
  ASSERT_EQ(ChildProcess("limit", bank_).wait(), 0);
  EXPECT_EQ(open()->head("r", kNoDeadline).value(), (RecordVersion{"b", "a", 2, "m"}));
}

// A small file system of its own.
class FullDisk : public RocksdbStoreTest {
 protected:
  bool mount_small() {
    fs::create_directory(bank_);
    mounted_ = ::mount("tmpfs", bank_.c_str(), "tmpfs", 0, "size=48m") == 0;
    return mounted_;
  }
  ~FullDisk() override {
    if (mounted_) ::umount(bank_.c_str());
  }
  // Puts until refused; how many went in.
  int fill(BankStore& store, const std::vector<std::byte>& bytes) {
    for (int n = 0;; ++n) {
      const auto put =
          store.put_payload(std::string("t").append(std::to_string(n)), bytes, kNoDeadline);
      if (put) continue;
      EXPECT_EQ(error_code_name(put.error().code), "no_space") << put.error().message;
      return n;
    }
  }
  const std::string ballast_ = bank_ + "/ballast.log.dbtmp";
  bool mounted_ = false;
};

constexpr const char* kNeedsRoot =
    "SKIPPED: a full disk needs the right to mount a tmpfs (run as root)";

TEST_F(FullDisk, WritesAreRefusedReadsGoOnAndWritesWorkAgainOnceThereIsSpace) {
  if (!mount_small()) GTEST_SKIP() << kNeedsRoot;
  const auto bytes = random_bytes(1 << 20);
  auto store = open();
  ASSERT_NE(store, nullptr);
  const int stored = fill(*store, bytes);
  EXPECT_GE(stored, 10);
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));  // small writes have their own reserve
  write_all(ballast_, std::string(std::size_t{48} << 20, 'b'));
  EXPECT_ERROR(store->publish("r", "a", "b", "m", kNoDeadline), ErrorCode::kNoSpace);
  EXPECT_ERROR(store->put_payload("more", bytes, kNoDeadline), ErrorCode::kNoSpace);
  EXPECT_EQ(store->get_payload("t0", kNoDeadline).value(), bytes);
  fs::remove(ballast_);
  ASSERT_OK(store->publish("r", "a", "b", "m", kNoDeadline));
  ASSERT_OK(store->erase_payload("t1", kNoDeadline));
  store.reset();
  store = open();
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(
      store->get_payload(std::string("t").append(std::to_string(stored - 1)), kNoDeadline).value(),
      bytes);
  EXPECT_EQ(store->head("r", kNoDeadline).value().token, "b");
}

TEST_F(FullDisk, TheEngineMeetingTheEndOfTheDiskLosesNothing) {
  if (!mount_small()) GTEST_SKIP() << kNeedsRoot;
  const auto bytes = random_bytes(1 << 20);
  auto store = open({.disk_reserve_bytes = 0});
  ASSERT_NE(store, nullptr);
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));
  write_all(ballast_, std::string(std::size_t{30} << 20, 'b'));
  const int stored = fill(*store, bytes);
  EXPECT_GE(stored, 5);
  EXPECT_ERROR(store->publish("r", "a", "b", "m", kNoDeadline), ErrorCode::kNoSpace);
  EXPECT_EQ(store->get_payload("t0", kNoDeadline).value(), bytes);
  EXPECT_EQ(store->head("r", kNoDeadline).value().token, "a");
  fs::remove(ballast_);
  ASSERT_OK(store->publish("r", "a", "b", "m", kNoDeadline));
  for (int i = 0; i < stored; ++i) {
    EXPECT_EQ(store->get_payload(std::string("t").append(std::to_string(i)), kNoDeadline).value(),
              bytes);
  }
  EXPECT_EQ(store->usage(kNoDeadline).value().payload_bytes, static_cast<std::uint64_t>(stored)
                                                                 << 20);
}

}  // namespace
}  // namespace memslot
