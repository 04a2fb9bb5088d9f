#pragma once
// BankStore on RocksDB: one directory, one process. On-disk form: docs/formats/bank.md.
//
// Durability: put_payload, publish, erase and trim return after the write-ahead log is on disk.
// What
//   was acknowledged survives kill -9 and, as far as the disk keeps its promises, a power failure.
// Integrity: a payload's XXH3-128 is stored beside it and checked on every read; RocksDB's own
//   CRC32C on payload reads is off (Debian's build computes it in software, ten times slower).
// Disk full: kNoSpace; the store goes on reading, and writes again once there is space.
#include <memory>
#include <string>

#include "storage/open_store.h"

namespace memslot {

// Errors: open_store().
Result<std::unique_ptr<BankStore>> open_rocksdb_store(const std::string& directory,
                                                      const StoreOptions& options,
                                                      const Clock& clock);

// Errors: restore_store().
Status restore_rocksdb_store(const std::string& from, const std::string& to);

}  // namespace memslot
