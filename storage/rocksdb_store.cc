#include <sys/statvfs.h>

#include <filesystem>

#include "shared/base/log.h"
#include "storage/rocksdb_backup.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_store_impl.h"

namespace memslot {

namespace bf = bank_format;

namespace {

namespace fs = std::filesystem;

std::uint64_t directory_bytes(const std::string& directory) {
  std::error_code error;
  std::uint64_t sum = 0;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    std::error_code vanished;  // the engine deletes files at any time
    const auto size = entry.file_size(vanished);
    if (!vanished) sum += size;
  }
  return sum;
}

}  // namespace

rocksdb::ReadOptions RocksdbStore::read_options(TimePoint deadline) const {
  rocksdb::ReadOptions o;
  const auto now = clock_.now();
  // RocksDB counts from the system clock's epoch; a far deadline is none.
  if (deadline > now && deadline - now < std::chrono::hours(1)) {
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - now);
    o.deadline = std::chrono::microseconds(db_->GetEnv()->NowMicros()) + left;
  }
  return o;
}

Result<std::string> RocksdbStore::get(const std::string& key, TimePoint deadline) {
  std::string value;
  const auto s = db_->Get(read_options(deadline), default_, key, &value);
  if (!s.ok()) return from_status(s, "bank read");
  return value;
}

Status RocksdbStore::check_space(std::uint64_t bytes, std::uint64_t reserve) const {
  if (reserve == 0) return ok();
  struct statvfs disk {};
  if (::statvfs(directory_.c_str(), &disk) != 0) return ok();  // then the write itself will tell
  std::uint64_t unflushed = 0;
  std::uint64_t one = 0;
  for (auto* family : {default_, payload_}) {
    if (db_->GetIntProperty(family, "rocksdb.size-all-mem-tables", &one)) unflushed += one;
  }
  const std::uint64_t free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
  if (free >= bytes + unflushed + reserve) return ok();
  return Error{ErrorCode::kNoSpace, "bank " + directory_ + ": expected " +
                                        std::to_string(bytes + unflushed + reserve) +
                                        " bytes free on disk, found " + std::to_string(free)};
}

Status RocksdbStore::reserve_quota(std::uint64_t bytes) {
  std::uint64_t used = payload_bytes_;
  do {
    if (quota_bytes_ != 0 && (used > quota_bytes_ || bytes > quota_bytes_ - used)) {
      return bf::over_quota(quota_bytes_, used, bytes);
    }
  } while (!payload_bytes_.compare_exchange_weak(used, used + bytes));
  return ok();
}

Status RocksdbStore::write(rocksdb::WriteBatch& batch, std::string_view what) {
  rocksdb::WriteOptions options;
  options.sync = true;
  const auto s = db_->Write(options, &batch);
  if (s.ok()) return ok();
  write_failed_ = true;
  log::warn("bank {}: {}: {}", directory_, what, s.ToString());
  return from_status(s, what);
}

Status RocksdbStore::put_payload(std::string_view token, std::span<const std::byte> bytes,
                                 TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  if (bytes.size() > kMaxBlobBytes)
    return invalid("payload bytes", "at most 67108864", bytes.size());
  MEMSLOT_TRY(const auto use, to_write(deadline));
  const std::string key = bf::payload_key(token);
  const bf::PayloadEntry entry{bytes.size(), clock_.unix_ms(), xxh128(bytes)};
  rocksdb::WriteBatch batch;
  batch.Put(default_, key, bf::encode_payload_entry(entry));
  const std::lock_guard lock(stripe(key));
  if (auto old = get(key, deadline)) {
    MEMSLOT_TRY(const auto stored, bf::decode_payload_entry(old.value()));
    if (stored.bytes != entry.bytes || stored.digest != entry.digest) {
      return Error{ErrorCode::kConflict, "payload " + std::string(token) +
                                             ": expected the bytes already stored, found others"};
    }
    return write(batch, "renew payload");
  } else if (old.error().code != ErrorCode::kNotFound) {
    return old.error();
  }
  MEMSLOT_TRY(check_space(bytes.size(), disk_reserve_));
  MEMSLOT_TRY(reserve_quota(bytes.size()));
  batch.Put(payload_, slice(token), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  auto written = write(batch, "put payload");
  if (!written) payload_bytes_ -= bytes.size();
  return written;
}

Result<std::vector<std::byte>> RocksdbStore::get_payload(std::string_view token,
                                                         TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  MEMSLOT_TRY(const auto use, to_read(deadline));
  const std::string key = bf::payload_key(token);
  const auto raw = get(key, deadline);
  if (!raw && raw.error().code == ErrorCode::kNotFound) return bf::payload_missing(token);
  if (!raw) return raw.error();
  MEMSLOT_TRY(const auto entry, bf::decode_payload_entry(raw.value()));
  auto options = read_options(deadline);
  options.verify_checksums = false;  // our own digest is checked below, at ten times the speed
  rocksdb::PinnableSlice value;
  const auto s = db_->Get(options, payload_, slice(token), &value);
  const std::string what = "payload " + std::string(token);
  if (s.IsNotFound()) {
    if (!get(key, deadline)) return bf::payload_missing(token);  // erased in between
    return corrupt(what, std::to_string(entry.bytes) + " bytes", "none");
  }
  if (!s.ok()) return from_status(s, what);
  const auto bytes = bytes_of(value.ToStringView());
  if (bytes.size() != entry.bytes) return corrupt(what + " bytes", entry.bytes, bytes.size());
  const auto digest = xxh128(bytes);
  if (digest != entry.digest) return corrupt(what + " XXH3-128", entry.digest.hex(), digest.hex());
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Status RocksdbStore::erase_payload(std::string_view token, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  MEMSLOT_TRY(const auto use, to_write(deadline));
  const std::string key = bf::payload_key(token);
  const std::lock_guard lock(stripe(key));
  const auto raw = get(key, deadline);
  if (!raw) return raw.error().code == ErrorCode::kNotFound ? ok() : Status(raw.error());
  MEMSLOT_TRY(const auto entry, bf::decode_payload_entry(raw.value()));
  rocksdb::WriteBatch batch;
  batch.Delete(default_, key);
  batch.Delete(payload_, slice(token));
  MEMSLOT_TRY(write(batch, "erase payload"));
  payload_bytes_ -= entry.bytes;
  return ok();
}

Result<PayloadPage> RocksdbStore::list_payloads(std::string_view after, std::size_t limit,
                                                TimePoint deadline) {
  MEMSLOT_TRY(bf::check_page(limit));
  MEMSLOT_TRY(const auto use, to_read(deadline));
  PayloadPage page;
  MEMSLOT_TRY(
      scan(bf::payload_key(after), "p", deadline, [&](auto key, auto value) -> Result<bool> {
        const auto token = key.substr(1);
        if (token == after) return true;
        if (page.entries.size() == limit) {
          page.next = page.entries.back().token;
          return false;
        }
        MEMSLOT_TRY(const auto entry, bf::decode_payload_entry(value));
        page.entries.push_back({std::string(token), entry.bytes, entry.put_unix_ms});
        return true;
      }));
  return page;
}

Result<RecordVersion> RocksdbStore::head(std::string_view id, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(const auto use, to_read(deadline));
  return read_head(id, deadline);
}

Result<RecordVersion> RocksdbStore::read_head(std::string_view id, TimePoint deadline) {
  const auto raw = get(bf::head_key(id), deadline);
  if (!raw && raw.error().code == ErrorCode::kNotFound) return bf::record_missing(id);
  if (!raw) return raw.error();
  return bf::decode_version(raw.value());
}

Result<std::uint64_t> RocksdbStore::next_number(std::string_view id, TimePoint deadline) {
  const auto raw = get(bf::last_number_key(id), deadline);
  if (!raw && raw.error().code == ErrorCode::kNotFound) return std::uint64_t{1};
  if (!raw) return raw.error();
  MEMSLOT_TRY(const auto last, bf::decode_number(raw.value()));
  return last + 1;
}

Result<RecordVersion> RocksdbStore::publish(std::string_view id, std::string_view expected,
                                            std::string_view token, std::string_view metadata,
                                            TimePoint deadline) {
  MEMSLOT_TRY(bf::check_publish(id, expected, token, metadata));
  MEMSLOT_TRY(const auto use, to_write(deadline));
  const std::lock_guard lock(stripe(id));
  auto current = read_head(id, deadline);
  if (!current && current.error().code != ErrorCode::kNotFound) return current.error();
  const bool exists = current.has_value();
  if (exists && current.value().token == token) return current;
  const std::string found = exists ? current.value().token : "";
  if (found != expected) return bf::head_moved(id, expected, found);
  if (exists && get(bf::used_key(id, token), deadline)) return bf::head_moved(id, token, found);

  RecordVersion next{std::string(token), found, 0, std::string(metadata)};
  if (exists) {
    next.number = current.value().number + 1;
  } else {
    MEMSLOT_TRY(next.number, next_number(id, deadline));
  }
  MEMSLOT_TRY(check_space(2 * metadata.size(), disk_reserve_ / 4));
  const std::string encoded = bf::encode_version(next);
  rocksdb::WriteBatch batch;  // all of it or nothing
  batch.Put(default_, bf::head_key(id), encoded);
  batch.Put(default_, bf::version_key(id, next.number), encoded);
  batch.Put(default_, bf::used_key(id, token), bf::encode_number(next.number));
  const auto written = write(batch, "publish");
  if (!written) {
    // A log write that failed for another reason than space may or may not be on disk.
    auto error = written.error();
    if (error.code != ErrorCode::kNoSpace) error.code = ErrorCode::kIndeterminate;
    return error;
  }
  if (!exists) ++records_;
  return next;
}

Result<std::vector<RecordVersion>> RocksdbStore::history(std::string_view id, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(const auto use, to_read(deadline));
  std::vector<RecordVersion> versions;
  const std::string prefix = bf::version_prefix(id);
  MEMSLOT_TRY(scan(prefix, prefix, deadline, [&](auto, auto value) -> Result<bool> {
    MEMSLOT_TRY(auto version, bf::decode_version(value));
    versions.push_back(std::move(version));
    return true;
  }));
  if (versions.empty()) return bf::record_missing(id);
  return versions;
}

Result<RecordPage> RocksdbStore::list(std::string_view prefix, std::string_view after,
                                      std::size_t limit, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_page(limit));
  MEMSLOT_TRY(const auto use, to_read(deadline));
  RecordPage page;
  const auto from = bf::head_key(std::max(prefix, after));
  MEMSLOT_TRY(scan(from, bf::head_key(prefix), deadline, [&](auto key, auto value) -> Result<bool> {
    const auto id = key.substr(1);
    if (id == after) return true;
    if (page.entries.size() == limit) {
      page.next = page.entries.back().id;
      return false;
    }
    MEMSLOT_TRY(auto version, bf::decode_version(value));
    page.entries.push_back({std::string(id), std::move(version)});
    return true;
  }));
  return page;
}

Status RocksdbStore::erase(std::string_view id, std::string_view expected, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(const auto use, to_write(deadline));
  const std::lock_guard lock(stripe(id));
  MEMSLOT_TRY(const auto current, read_head(id, deadline));
  if (!expected.empty() && current.token != expected) {
    return bf::head_moved(id, expected, current.token);
  }
  rocksdb::WriteBatch batch;
  const auto remove = [&](auto key, auto) -> Result<bool> {
    batch.Delete(default_, slice(key));
    return true;
  };
  MEMSLOT_TRY(scan(bf::version_prefix(id), bf::version_prefix(id), deadline, remove));
  MEMSLOT_TRY(scan(bf::used_prefix(id), bf::used_prefix(id), deadline, remove));
  batch.Delete(default_, bf::head_key(id));
  batch.Put(default_, bf::last_number_key(id), bf::encode_number(current.number));
  MEMSLOT_TRY(write(batch, "erase record"));
  --records_;
  return ok();
}

Status RocksdbStore::trim(std::string_view id, std::size_t keep, TimePoint deadline) {
  if (keep == 0) return invalid("versions to keep", "1 or more", keep);
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(const auto use, to_write(deadline));
  const std::lock_guard lock(stripe(id));
  MEMSLOT_TRY(const auto current, read_head(id, deadline));
  rocksdb::WriteBatch batch;
  const std::string prefix = bf::version_prefix(id);
  // Numbers are consecutive, so the oldest to keep is known without counting.
  MEMSLOT_TRY(scan(prefix, prefix, deadline, [&](auto key, auto value) -> Result<bool> {
    MEMSLOT_TRY(const auto version, bf::decode_version(value));
    if (version.number + keep > current.number) return false;
    batch.Delete(default_, slice(key));
    batch.Delete(default_, bf::used_key(id, version.token));
    return true;
  }));
  return batch.Count() == 0 ? ok() : write(batch, "trim record");
}

Result<StoreUsage> RocksdbStore::usage(TimePoint deadline) {
  MEMSLOT_TRY(const auto use, to_read(deadline));
  return StoreUsage{payload_bytes_, directory_bytes(directory_), quota_bytes_, records_,
                    *compactions_};
}

Status RocksdbStore::compact(TimePoint deadline) {
  MEMSLOT_TRY(const auto use, to_write(deadline));
  // Flushing both families retires the log that holds the erased bytes; compaction then rewrites
  // every blob file that has garbage.
  const auto flushed = db_->Flush(rocksdb::FlushOptions(), {default_, payload_});
  if (!flushed.ok()) return from_status(flushed, "compact: flush");
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  options.blob_garbage_collection_age_cutoff = 1.0;
  for (auto* family : {default_, payload_}) {
    const auto s = db_->CompactRange(options, family, nullptr, nullptr);
    if (!s.ok()) return from_status(s, "compact");
  }
  return ok();
}

Status RocksdbStore::backup(const std::string& directory, TimePoint deadline) {
  MEMSLOT_TRY(const auto use, to_read(deadline));
  return backup_database(*db_, directory);
}

}  // namespace memslot
