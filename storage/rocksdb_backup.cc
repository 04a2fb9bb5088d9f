#include "storage/rocksdb_backup.h"

#include <fcntl.h>
#include <rocksdb/db.h>                       // DB
#include <rocksdb/utilities/backup_engine.h>  // BackupEngine
#include <unistd.h>

#include <cerrno>
#include <cstdio>  // rename
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

#include "storage/directory_lock.h"
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

Error not_empty(const std::string& to) {
  return invalid("restore target", "an empty or absent directory", to + " with files in it");
}

Error cannot(const char* what, const fs::path& path, int why) {
  const ErrorCode code = why == ENOSPC || why == EDQUOT                  ? ErrorCode::kNoSpace
                         : why == EACCES || why == EPERM || why == EROFS ? ErrorCode::kPermission
                                                                         : ErrorCode::kIo;
  return {code,
          "restore: cannot " + std::string(what) + " " + path.string() + ": " + std::strerror(why)};
}

Status sync_directory(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  return synced ? ok() : Status(cannot("sync", path, why));
}

// Where a bank is made before it is one: "<target>.restoring/bank", renamed to the target as a
// whole. So the target is never half a bank, and a bank that somebody makes there meanwhile is
// never written into. What is left of a restore that was killed is cleared away by the next.
class Staging {
 public:
  // kBusy: another restore to this target is under way; kNoSpace, kPermission, kIo.
  static Result<Staging> make(const fs::path& target) {
    Staging staging(target.string() + ".restoring");
    std::error_code error;
    fs::create_directory(staging.directory_, error);
    if (error) return cannot("make", staging.directory_, error.value());
    auto lock = DirectoryLock::take(staging.directory_);
    if (!lock) {
      if (lock.error().code != ErrorCode::kBusy) fs::remove(staging.directory_, error);
      return lock.error();
    }
    staging.lock_ = std::make_unique<DirectoryLock>(std::move(lock).value());
    fs::remove_all(staging.bank(), error);
    return staging;
  }
  Staging(Staging&&) noexcept = default;
  Staging& operator=(Staging&&) = delete;
  ~Staging() {
    if (lock_ == nullptr) return;  // another's
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }
  fs::path bank() const { return directory_ / "bank"; }

  Status move_to(const fs::path& target) {
    std::error_code error;
    const auto there = fs::status(target, error);
    if (fs::is_directory(there)) fs::permissions(bank(), there.permissions(), error);
    if (std::rename(bank().c_str(), target.c_str()) != 0) {
      const int why = errno;
      if (why == ENOTEMPTY || why == EEXIST) return not_empty(target.string());
      if (why == EBUSY || why == EXDEV) {
        return invalid("restore target", "a directory that can be replaced",
                       target.string() + ", a mount point (name a directory in it)");
      }
      return cannot("make", target, why);
    }
    return sync_directory(target.parent_path());
  }

 private:
  explicit Staging(fs::path directory) : directory_(std::move(directory)) {}
  fs::path directory_;
  std::unique_ptr<DirectoryLock> lock_;
};

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
  std::error_code error;
  const bool is_file = fs::exists(to, error) && !fs::is_directory(to, error);
  if (is_file) return invalid("restore target", "an empty or absent directory", to + ", a file");
  if (!is_absent_or_empty(to)) return not_empty(to);
  const fs::path absolute = fs::absolute(to, error);
  fs::path target = error ? fs::path() : fs::weakly_canonical(absolute, error);
  if (error) return cannot("find", to, error.value());
  if (!target.has_filename()) target = target.parent_path();  // "bank/"
  rocksdb::BackupEngineReadOnly* opened = nullptr;
  auto s = rocksdb::BackupEngineReadOnly::Open(rocksdb::Env::Default(),
                                               rocksdb::BackupEngineOptions(from), &opened);
  std::unique_ptr<rocksdb::BackupEngineReadOnly> engine(opened);
  if (!s.ok()) return from_status(s, "restore from " + from);
  rocksdb::BackupInfo latest;
  rocksdb::Status checked = engine->GetLatestBackupInfo(&latest);
  if (checked.ok()) checked = engine->VerifyBackup(latest.backup_id, /*verify_with_checksum=*/true);
  if (!checked.ok()) {
    return Error{ErrorCode::kCorruption, "restore from " + from + ": " + checked.ToString()};
  }
  MEMSLOT_TRY(auto staging, Staging::make(target));
  const std::string bank = staging.bank().string();
  s = engine->RestoreDBFromLatestBackup(bank, bank);
  engine.reset();  // after a failure its threads still copy: they end before the remains go
  if (!s.ok()) return from_status(s, "restore to " + to);
  return staging.move_to(target);
}

}  // namespace memslot
