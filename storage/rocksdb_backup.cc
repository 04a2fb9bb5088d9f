#include "storage/rocksdb_backup.h"

#include <rocksdb/db.h>                       // DB
#include <rocksdb/utilities/backup_engine.h>  // BackupEngine

#include <filesystem>
#include <memory>
#include <vector>

#include "storage/rocksdb_options.h"
#include "storage/rocksdb_store.h"

namespace memslot {

namespace fs = std::filesystem;

namespace {

// After a failure, so that a repeat finds the directory as the first try did: absent or empty.
void remove_made(const fs::path& directory, bool existed) {
  std::error_code ignored;  // the failure itself is what is reported
  if (!existed) {
    fs::remove_all(directory, ignored);
    return;
  }
  std::vector<fs::path> made;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) made.push_back(entry);
  for (const auto& path : made) fs::remove_all(path, ignored);
}

}  // namespace

Status backup_database(rocksdb::DB& db, const std::string& directory) {
  if (!is_absent_or_empty(directory)) {
    return invalid("backup directory", "an empty or absent one", directory + " with files in it");
  }
  std::error_code error;
  const bool existed = fs::exists(directory, error);
  fs::create_directories(directory, error);
  if (error)
    return Error{ErrorCode::kIo, "backup: cannot make " + directory + ": " + error.message()};
  rocksdb::BackupEngine* opened = nullptr;
  rocksdb::Status s = rocksdb::BackupEngine::Open(rocksdb::BackupEngineOptions(directory),
                                                  rocksdb::Env::Default(), &opened);
  std::unique_ptr<rocksdb::BackupEngine> engine(opened);
  if (s.ok()) s = engine->CreateNewBackup(rocksdb::CreateBackupOptions(), &db);
  if (s.ok()) return ok();
  engine.reset();
  remove_made(directory, existed);
  return from_status(s, "backup to " + directory);
}

Status restore_rocksdb_store(const std::string& from, const std::string& to) {
  if (!fs::exists(from + "/meta")) {
    return Error{ErrorCode::kNotFound, "restore: expected a backup in " + from + ", found none"};
  }
  if (!is_absent_or_empty(to)) {
    return invalid("restore target", "an empty or absent directory", to + " with files in it");
  }
  rocksdb::BackupEngineReadOnly* opened = nullptr;
  auto s = rocksdb::BackupEngineReadOnly::Open(rocksdb::Env::Default(),
                                               rocksdb::BackupEngineOptions(from), &opened);
  const std::unique_ptr<rocksdb::BackupEngineReadOnly> engine(opened);
  if (!s.ok()) return from_status(s, "restore from " + from);
  rocksdb::BackupInfo latest;
  rocksdb::Status checked = engine->GetLatestBackupInfo(&latest);
  if (checked.ok()) checked = engine->VerifyBackup(latest.backup_id, /*verify_with_checksum=*/true);
  if (!checked.ok()) {
    return Error{ErrorCode::kCorruption, "restore from " + from + ": " + checked.ToString()};
  }
  std::error_code error;
  const bool existed = fs::exists(to, error);
  const rocksdb::Status restored = engine->RestoreDBFromLatestBackup(to, to);
  if (restored.ok()) return ok();
  remove_made(to, existed);
  return from_status(restored, "restore to " + to);
}

}  // namespace memslot
