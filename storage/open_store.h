#pragma once
// The one place that knows which engines stand behind BankStore.
#include <cstdint>
#include <memory>
#include <string>

#include "storage/bank_store.h"

namespace memslot {

struct StoreOptions {
  // Upper bound of the sum of stored payloads, in bytes; 0: none. The engine's own overhead (log,
  // index, erased bytes that are not compacted yet) comes on top.
  std::uint64_t quota_bytes = 0;
  bool create_if_missing = true;
  // Free disk, in bytes, that putting a payload must leave; publishing, which is small, goes on
  // down to a quarter of it. 0: writes go on until the disk itself refuses them.
  std::uint64_t disk_reserve_bytes = std::uint64_t{8} << 20;
};

// `location`: "memory:" for the in-memory specification, otherwise the directory of a bank.
// `clock` must outlive the store.
// kNotFound: absent and not to be created; kBusy: held by another process; kCorruption;
// kNotSupported: a bank format that this build does not know; kInvalidArgument: the directory holds
// something that is not a bank.
Result<std::unique_ptr<BankStore>> open_store(const std::string& location,
                                              const StoreOptions& options, const Clock& clock);

// Makes the bank directory `to` (absent or empty) from what BankStore::backup() left in `from`.
// Every file's checksum is verified before the first byte is written. The bank is made in
// "<to>.restoring" and renamed: whatever fails, or is killed, leaves `to` as it was, also where
// somebody makes a bank there meanwhile. kNotFound: no backup there; kCorruption; kInvalidArgument:
// `to` is not empty, no directory, or a mount point; kBusy: another restore to it is under way;
// kNoSpace; kPermission; kIo.
Status restore_store(const std::string& from, const std::string& to);

}  // namespace memslot
