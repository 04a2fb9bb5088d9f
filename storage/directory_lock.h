#pragma once
// One process at a time in a bank directory: an advisory lock on the file "memslot.lock" in it,
// which holds the owner's process id for the message. The system releases it when the process ends,
// however it ends.
//
// Owner: the lock is held for the object's lifetime; move-only.
#include <string>

#include "shared/base/error.h"

namespace memslot {

class DirectoryLock {
 public:
  // kBusy naming the process that holds it; kIo.
  static Result<DirectoryLock> take(const std::string& directory);

  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

  static constexpr const char* kFileName = "memslot.lock";

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace memslot
