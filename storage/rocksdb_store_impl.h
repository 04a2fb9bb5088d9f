#pragma once
// The engine's class, shared by its two sources: rocksdb_open.cc (opening, reopening, closing) and
// rocksdb_store.cc (the operations). Nothing else includes this.
#include <rocksdb/db.h>           // DB
#include <rocksdb/write_batch.h>  // WriteBatch

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "storage/bank_format.h"
#include "storage/directory_lock.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_store.h"

namespace memslot {

inline rocksdb::Slice slice(std::string_view text) { return {text.data(), text.size()}; }

class RocksdbStore final : public BankStore {
 public:
  RocksdbStore(std::string directory, const StoreOptions& options, const Clock& clock,
               DirectoryLock lock)
      : directory_(std::move(directory)),
        quota_bytes_(options.quota_bytes),
        disk_reserve_(options.disk_reserve_bytes),
        clock_(clock),
        lock_(std::move(lock)) {}
  ~RocksdbStore() override { close(); }
  Status open(bool fresh);

  Status put_payload(std::string_view token, std::span<const std::byte> bytes,
                     TimePoint deadline) override;
  Result<std::vector<std::byte>> get_payload(std::string_view token, TimePoint deadline) override;
  Status erase_payload(std::string_view token, TimePoint deadline) override;
  Result<PayloadPage> list_payloads(std::string_view after, std::size_t limit,
                                    TimePoint deadline) override;
  Result<RecordVersion> publish(std::string_view id, std::string_view expected,
                                std::string_view token, std::string_view metadata,
                                TimePoint deadline) override;
  Result<RecordVersion> head(std::string_view id, TimePoint deadline) override;
  Result<std::vector<RecordVersion>> history(std::string_view id, TimePoint deadline) override;
  Result<RecordPage> list(std::string_view prefix, std::string_view after, std::size_t limit,
                          TimePoint deadline) override;
  Status erase(std::string_view id, std::string_view expected, TimePoint deadline) override;
  Status trim(std::string_view id, std::size_t keep, TimePoint deadline) override;
  Result<StoreUsage> usage(TimePoint deadline) override;
  Status compact(TimePoint deadline) override;
  Status backup(const std::string& directory, TimePoint deadline) override;

 private:
  // Held while the database is used, so that reopen() waits for it.
  using Use = std::shared_lock<std::shared_mutex>;
  Result<Use> to_read(TimePoint deadline);
  Result<Use> to_write(TimePoint deadline);  // reopens after a failed write
  Status reopen();
  void close();
  Result<RecordVersion> read_head(std::string_view id, TimePoint deadline);
  rocksdb::ReadOptions read_options(TimePoint deadline) const;
  std::mutex& stripe(std::string_view name) {
    return stripes_[std::hash<std::string_view>{}(name) % stripes_.size()];
  }
  Result<std::string> get(const std::string& key, TimePoint deadline);  // kNotFound
  Status write(rocksdb::WriteBatch& batch, std::string_view what);
  Status check_space(std::uint64_t bytes, std::uint64_t reserve) const;
  Status reserve_quota(std::uint64_t bytes);
  Status check_format_record();
  Status count_contents();
  // visit(key, value) -> Result<bool>, for keys in [from, after_prefix(prefix)); false ends it.
  template <class Visit>
  Status scan(std::string_view from, std::string_view prefix, TimePoint deadline, Visit visit);
  Result<std::uint64_t> next_number(std::string_view id, TimePoint deadline);

  const std::string directory_;
  const std::uint64_t quota_bytes_;
  const std::uint64_t disk_reserve_;
  const Clock& clock_;
  const DirectoryLock lock_;
  std::shared_mutex db_mutex_;  // guards the next three: shared to use, alone to replace
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* default_ = nullptr;  // owned by us, destroyed before db_
  rocksdb::ColumnFamilyHandle* payload_ = nullptr;
  std::array<std::mutex, 64> stripes_;  // by record id or payload token: check, then write
  std::atomic<bool> write_failed_ = false;
  std::atomic<std::uint64_t> payload_bytes_ = 0;
  std::atomic<std::uint64_t> records_ = 0;
  // Shared: the engine's listeners may outlive it.
  const std::shared_ptr<std::atomic<std::uint64_t>> compactions_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
};

template <class Visit>
Status RocksdbStore::scan(std::string_view from, std::string_view prefix, TimePoint deadline,
                          Visit visit) {
  auto options = read_options(deadline);
  const std::string bound = bank_format::after_prefix(prefix);
  const auto bound_slice = slice(bound);
  if (!bound.empty()) options.iterate_upper_bound = &bound_slice;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options, default_));
  for (it->Seek(slice(from)); it->Valid(); it->Next()) {
    MEMSLOT_TRY(const bool more, visit(it->key().ToStringView(), it->value().ToStringView()));
    if (!more) return ok();
  }
  if (!it->status().ok()) return from_status(it->status(), "bank scan");
  return ok();
}

}  // namespace memslot
