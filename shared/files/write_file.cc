#include "shared/files/write_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace memslot {
namespace {

Error failed(const std::string& path, const char* doing) {
  const int why = errno;
  const ErrorCode code = why == ENOSPC || why == EDQUOT                  ? ErrorCode::kNoSpace
                         : why == EACCES || why == EPERM || why == EROFS ? ErrorCode::kPermission
                                                                         : ErrorCode::kIo;
  return {code, path + ": cannot " + doing + ": " + std::strerror(why)};
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, unsigned mode = 0)
      : fd_(::open(path.c_str(), flags, mode)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status write_and_sync(const std::string& path, std::string_view bytes, unsigned mode) {
  const Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (file.get() < 0) return failed(path, "create");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed(path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(file.get()) != 0) return failed(path, "sync");
  return ok();
}

}  // namespace

Status write_file(const std::string& path, std::string_view bytes, unsigned mode) {
  const std::string part = path + ".part";
  if (const Status written = write_and_sync(part, bytes, mode); !written) {
    ::unlink(part.c_str());
    return written;
  }
  if (std::rename(part.c_str(), path.c_str()) != 0) {
    Error error = failed(path, "replace");
    ::unlink(part.c_str());
    return error;
  }
  const auto folder = std::filesystem::path(path).parent_path();
  const Descriptor directory(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  if (directory.get() < 0 || ::fsync(directory.get()) != 0)
    return failed(path, "sync the folder of");
  return ok();
}

}  // namespace memslot
