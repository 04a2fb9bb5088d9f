#pragma once
// A file's bytes, mapped read-only.
//
// Errors:  kNotFound (no such file), kIo (not a regular file, or the system refused), kCorruption
//          (empty file).
// Owner:   unmaps on destruction; spans of bytes() must not outlive it.
// Limits:  another process that truncates the file while it is mapped ends this one (SIGBUS).
// Threads: const calls from any thread.
#include <cstddef>
#include <span>
#include <string>

#include "shared/base/error.h"

namespace memslot {

class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Gives the pages that hold `part` back to the system; they are read again when next touched.
  // REQUIRES: part lies in bytes().
  void drop_pages(std::span<const std::byte> part) const;

 private:
  MappedFile(std::string path, const std::byte* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// T::parse() of a file's bytes; its errors name the path. Also kNotFound, kIo.
template <class T>
Result<T> parse_file(const std::string& path) {
  MEMSLOT_TRY(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  auto parsed = T::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!parsed) return parsed.error().with_context(path);
  return parsed;
}

}  // namespace memslot
