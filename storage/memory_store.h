#pragma once
// BankStore in ordinary containers: the executable specification of the interface, and the store of
// tests. Nothing survives the process; backup() is kNotSupported.
//
// Threads: one mutex around everything.
#include <map>
#include <mutex>
#include <set>

#include "storage/bank_store.h"

namespace memslot {

class MemoryStore final : public BankStore {
 public:
  // quota_bytes 0: none. `clock` must outlive the store.
  explicit MemoryStore(const Clock& clock, std::uint64_t quota_bytes = 0);

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
  struct Payload {
    std::vector<std::byte> bytes;
    std::int64_t put_unix_ms = 0;
  };
  struct Record {
    std::vector<RecordVersion> history;  // oldest first; empty once erased
    std::uint64_t last_number = 0;       // survives erase: numbers are never reused
  };
  Status check_deadline(TimePoint deadline) const;
  // The record, or null if it was never made or is erased.
  Record* find(std::string_view id);

  const Clock& clock_;
  const std::uint64_t quota_bytes_;
  std::mutex mutex_;
  // Guarded by mutex_:
  std::map<std::string, Payload, std::less<>> payloads_;
  std::map<std::string, Record, std::less<>> records_;
  std::uint64_t payload_bytes_ = 0;
};

}  // namespace memslot
