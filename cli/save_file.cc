// What a reply brought as a file, on its way to where the user wants it.
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "cli/commands.h"
#include "shared/files/write_file.h"

namespace memslot::cli {
namespace {

// A pipe, a terminal, a device: what is written to and never replaced. /dev/stdout too, whatever it
// stands for.
bool is_stream(const std::string& path) {
  std::error_code failure;
  const auto status = std::filesystem::status(path, failure);
  return path.starts_with("/dev/") || path.starts_with("/proc/") ||
         (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status));
}

Status write_stream(const std::string& path, std::string_view bytes) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) return ok();
  const int cause = errno;
  const bool full = cause == ENOSPC || cause == EDQUOT || cause == EFBIG;
  return Error{full ? ErrorCode::kNoSpace : ErrorCode::kIo,
               "file " + path + ": expected to write " + std::to_string(bytes.size()) +
                   " bytes, found " + std::generic_category().message(cause)};
}

// A file is replaced as a whole; through a link, the file that it names.
Status write_replacing(const std::string& path, std::string_view bytes) {
  std::error_code absent;
  const auto real = std::filesystem::canonical(path, absent);
  return write_file(absent ? path : real.string(), bytes);
}

}  // namespace

Status save_file(const Output& out, const std::string& path, const SharedBytes& file) {
  if (file == nullptr) {
    return Error{ErrorCode::kCorruption, "export: expected the file as part 0, found none"};
  }
  const std::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
  const std::string said = "wrote " + std::to_string(bytes.size()) + " bytes to " + path;
  if (is_stream(path)) {
    MEMSLOT_TRY(write_stream(path, bytes));
    out.note(said);  // standard output may be the stream
  } else {
    MEMSLOT_TRY(write_replacing(path, bytes));
    out.line(said);
  }
  return ok();
}

}  // namespace memslot::cli
