#include "storage/rocksdb_options.h"

#include <rocksdb/env.h>       // Logger
#include <rocksdb/listener.h>  // EventListener
#include <rocksdb/table.h>     // BlockBasedTableOptions

#include <array>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

// A flushed memtable becomes one blob file; it is what an unclean shutdown replays at most.
constexpr std::size_t kPayloadMemtable = std::size_t{64} << 20;
constexpr std::uint64_t kMinBlobBytes = 1024;  // smaller payloads live in the table itself
constexpr std::uint64_t kMaxLogBytes = std::uint64_t{256} << 20;

// RocksDB's messages go to our log. Its own file "LOG" lies on the bank's disk, and once writing to
// it has failed, as on a full disk, the next message ends a process whose RocksDB has assertions.
class ForwardingLogger final : public rocksdb::Logger {
 public:
  ForwardingLogger() : Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 1024> text{};
    if (std::vsnprintf(text.data(), text.size(), format, arguments) > 0) {
      log::debug("rocksdb: {}", text.data());
    }
  }
};

// After a failed log write RocksDB would try to write to the same file again, from a thread of its
// own; in a build with assertions (Debian's) that ends the process. The store reopens the bank
// instead (RocksdbStore::reopen), which also makes the log, not memory, say what was written.
class NoSelfRecovery final : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }
};

class CompactionCount final : public rocksdb::EventListener {
 public:
  explicit CompactionCount(std::shared_ptr<std::atomic<std::uint64_t>> count)
      : count_(std::move(count)) {}
  void OnCompactionCompleted(rocksdb::DB*, const rocksdb::CompactionJobInfo& info) override {
    if (info.status.ok()) ++*count_;
  }

 private:
  const std::shared_ptr<std::atomic<std::uint64_t>> count_;
};

}  // namespace

Error from_status(const rocksdb::Status& s, std::string_view what) {
  const std::string message = std::string(what) + ": " + s.ToString();
  if (s.subcode() == rocksdb::Status::kNoSpace || s.subcode() == rocksdb::Status::kSpaceLimit) {
    return {ErrorCode::kNoSpace, message};
  }
  if (s.IsNotFound()) return {ErrorCode::kNotFound, message};
  if (s.IsCorruption()) return {ErrorCode::kCorruption, message};
  if (s.IsTimedOut()) return {ErrorCode::kTimeout, message};
  if (s.IsBusy() || s.IsShutdownInProgress()) return {ErrorCode::kUnavailable, message};
  return {ErrorCode::kIo, message};
}

rocksdb::DBOptions bank_db_options(std::shared_ptr<std::atomic<std::uint64_t>> compactions) {
  rocksdb::DBOptions o;
  o.paranoid_checks = true;
  // A record cut off by kill -9 is dropped; damage before the end of the log is an error, never a
  // silent return to an older state.
  o.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  o.max_total_wal_size = kMaxLogBytes;
  o.max_background_jobs = 2;
  o.info_log = std::make_shared<ForwardingLogger>();
  o.stats_dump_period_sec = 0;
  o.listeners.push_back(std::make_shared<NoSelfRecovery>());
  o.listeners.push_back(std::make_shared<CompactionCount>(std::move(compactions)));
  return o;
}

rocksdb::ColumnFamilyOptions default_family_options() {
  rocksdb::ColumnFamilyOptions o;
  rocksdb::BlockBasedTableOptions table;
  table.checksum = rocksdb::ChecksumType::kXXH3;
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  o.compression = rocksdb::CompressionType::kNoCompression;  // weights do not compress
  return o;
}

rocksdb::ColumnFamilyOptions payload_family_options() {
  rocksdb::ColumnFamilyOptions o = default_family_options();
  o.write_buffer_size = kPayloadMemtable;
  o.enable_blob_files = true;
  o.min_blob_size = kMinBlobBytes;
  o.enable_blob_garbage_collection = true;
  o.blob_garbage_collection_age_cutoff = 0.25;
  o.blob_garbage_collection_force_threshold = 0.5;
  return o;
}

bool is_absent_or_empty(const std::string& directory) {
  std::error_code error;
  return !std::filesystem::exists(directory, error) || std::filesystem::is_empty(directory, error);
}

}  // namespace memslot
