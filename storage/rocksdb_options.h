#pragma once
// How the bank sets RocksDB up, and what its statuses mean here. Only storage/rocksdb_* include
// this.
#include <rocksdb/options.h>  // DBOptions, ColumnFamilyOptions
#include <rocksdb/status.h>   // Status

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/error.h"

namespace memslot {

inline constexpr const char* kPayloadFamily = "payload";

// `compactions` grows with each that ends.
rocksdb::DBOptions bank_db_options(std::shared_ptr<std::atomic<std::uint64_t>> compactions);
rocksdb::ColumnFamilyOptions default_family_options();
rocksdb::ColumnFamilyOptions payload_family_options();

// kNoSpace, kNotFound, kCorruption, kTimeout, kUnavailable, otherwise kIo. REQUIRES: !s.ok().
Error from_status(const rocksdb::Status& s, std::string_view what);

bool is_absent_or_empty(const std::string& directory);

}  // namespace memslot
