#include <filesystem>

#include "shared/base/log.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_store_impl.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;

// Reading the bank back after a failed write flushes what the log holds, on top of what is counted.
constexpr std::uint64_t kReopenReserve = std::uint64_t{4} << 20;

// A file that the bank's own list names and that is gone is damage, not an error of the disk.
Error damaged_if_missing(const rocksdb::Status& s, std::string_view what) {
  auto error = from_status(s, what);
  if (s.IsPathNotFound() || s.IsNotFound() || s.IsInvalidArgument()) {
    error.code = ErrorCode::kCorruption;
  }
  return error;
}

// Files that a bank being created may leave behind if the process dies in between.
bool is_engine_file(const std::string& name) {
  for (const std::string_view prefix :
       {"LOG", "LOCK", "IDENTITY", "MANIFEST-", "OPTIONS-", "memslot.lock"}) {
    if (name.starts_with(prefix)) return true;
  }
  return name.ends_with(".log") || name.ends_with(".dbtmp");
}

// kNotFound, kInvalidArgument; true if the bank is to be made.
Result<bool> is_fresh(const std::string& directory, bool create) {
  std::error_code error;
  if (fs::exists(directory + "/CURRENT", error)) return false;
  if (fs::exists(directory, error) && !fs::is_directory(directory, error)) {
    return invalid("bank location", "a directory", "a file, " + directory);
  }
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const auto name = entry.path().filename().string();
    if (!is_engine_file(name))
      return invalid("bank directory " + directory, "a bank or nothing", name);
  }
  if (!create)
    return Error{ErrorCode::kNotFound, "bank: expected one in " + directory + ", found none"};
  fs::create_directories(directory, error);
  if (error)
    return Error{ErrorCode::kIo, "bank: cannot make " + directory + ": " + error.message()};
  return true;
}

}  // namespace

namespace bf = bank_format;

Status RocksdbStore::open(bool fresh) {
  rocksdb::DBOptions options = bank_db_options(compactions_);
  options.create_if_missing = fresh;
  options.create_missing_column_families = true;
  if (!fresh) {
    std::vector<std::string> families;
    const auto s = rocksdb::DB::ListColumnFamilies(options, directory_, &families);
    if (!s.ok()) {
      return damaged_if_missing(s, "bank " + directory_);
    }
    for (const auto& name : families) {
      if (name == rocksdb::kDefaultColumnFamilyName || name == kPayloadFamily) continue;
      return Error{ErrorCode::kNotSupported,
                   "bank format: expected column families default and payload, found " + name};
    }
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const auto s = rocksdb::DB::Open(options, directory_,
                                   {{rocksdb::kDefaultColumnFamilyName, default_family_options()},
                                    {kPayloadFamily, payload_family_options()}},
                                   &handles, &db);
  if (!s.ok()) {
    if (s.ToString().find("lock") != std::string::npos) {
      return Error{ErrorCode::kBusy,
                   "bank " + directory_ + ": expected it free, found " + s.ToString()};
    }
    return damaged_if_missing(s, "bank " + directory_);
  }
  db_.reset(db);
  default_ = handles[0];
  payload_ = handles[1];
  write_failed_ = false;
  MEMSLOT_TRY(check_format_record());
  return count_contents();
}

Status RocksdbStore::check_format_record() {
  auto value = get(std::string(bf::kFormatKey), TimePoint::max());
  if (value) return bf::check_format(value.value());
  if (value.error().code != ErrorCode::kNotFound) return value.error();
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions(), default_));
  it->SeekToFirst();
  if (it->Valid()) return corrupt("bank format record", "one", "none in a bank that has records");
  rocksdb::WriteBatch batch;
  batch.Put(default_, slice(bf::kFormatKey), bf::encode_format(clock_.unix_ms()));
  return write(batch, "bank format record");
}

Status RocksdbStore::count_contents() {
  std::uint64_t bytes = 0, records = 0;
  MEMSLOT_TRY(scan("p", "p", TimePoint::max(), [&](auto, auto value) -> Result<bool> {
    MEMSLOT_TRY(const auto entry, bf::decode_payload_entry(value));
    bytes += entry.bytes;
    return true;
  }));
  MEMSLOT_TRY(scan("h", "h", TimePoint::max(), [&](auto, auto) -> Result<bool> {
    ++records;
    return true;
  }));
  payload_bytes_ = bytes;
  records_ = records;
  return ok();
}

Result<RocksdbStore::Use> RocksdbStore::to_read(TimePoint deadline) {
  if (clock_.now() > deadline) return bf::past_deadline("bank");
  Use use(db_mutex_);
  if (db_) return use;
  use.unlock();
  return to_write(deadline);
}

Result<RocksdbStore::Use> RocksdbStore::to_write(TimePoint deadline) {
  if (clock_.now() > deadline) return bf::past_deadline("bank");
  if (write_failed_) {
    MEMSLOT_TRY(reopen());
  }
  Use use(db_mutex_);
  if (!db_)
    return Error{ErrorCode::kUnavailable,
                 "bank " + directory_ + ": expected it open, found it closed"};
  return use;
}

// After a failed log write only the disk knows what was written: the database is closed and read
// back. Until there is space to do so, the old one goes on serving reads.
Status RocksdbStore::reopen() {
  const std::unique_lock lock(db_mutex_);
  if (!write_failed_) return ok();  // another thread has done it
  if (db_) {
    MEMSLOT_TRY(check_space(0, kReopenReserve));
  }
  close();
  if (auto opened = open(/*fresh=*/false); !opened) {
    write_failed_ = true;  // stays closed; the next call tries again
    close();
    return opened;
  }
  log::info("bank {}: reopened after a failed write", directory_);
  return ok();
}

void RocksdbStore::close() {
  if (!db_) return;
  // Everything is in the log already; flushing makes the next opening fast. Not after a failure:
  // see rocksdb_options.cc.
  for (auto* family : {payload_, default_}) {
    if (!write_failed_) db_->Flush(rocksdb::FlushOptions(), family).PermitUncheckedError();
  }
  for (auto* family : {payload_, default_}) {
    db_->DestroyColumnFamilyHandle(family).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
  db_.reset();
}

Result<std::unique_ptr<BankStore>> open_rocksdb_store(const std::string& directory,
                                                      const StoreOptions& options,
                                                      const Clock& clock) {
  MEMSLOT_TRY(is_fresh(directory, options.create_if_missing));
  MEMSLOT_TRY(auto lock, DirectoryLock::take(directory));
  // Again, now that nobody else can be making it.
  MEMSLOT_TRY(const bool fresh, is_fresh(directory, options.create_if_missing));
  auto store = std::make_unique<RocksdbStore>(directory, options, clock, std::move(lock));
  MEMSLOT_TRY(store->open(fresh));
  return std::unique_ptr<BankStore>(std::move(store));
}

}  // namespace memslot
