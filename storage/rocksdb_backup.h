#pragma once
// Backups of an open database, through RocksDB's own BackupEngine (files copied, not linked, with
// checksums). Only storage/rocksdb_* include this.
#include <string>

#include "shared/base/error.h"

namespace rocksdb {
class DB;
}

namespace memslot {

// kInvalidArgument: the directory has files in it; kNoSpace; kIo.
Status backup_database(rocksdb::DB& db, const std::string& directory);

}  // namespace memslot
