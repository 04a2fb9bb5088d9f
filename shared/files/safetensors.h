#pragma once
// Reading the safetensors format.
//
//   u64 header bytes N (little-endian) | N bytes of JSON | data
//   JSON: { "name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...,
//           "__metadata__": {"key": "text", ...} }       offsets count from the start of data
//
// parse() accepts a file only if every byte of data belongs to exactly one tensor and every
// tensor's bytes equal its shape times its element size.
//
// Errors:  kCorruption (truncated, not JSON, wrong fields, offsets, sizes), kNotSupported (unknown
//          dtype), kNotFound (no tensor of that name), kInvalidArgument (rank or elements beyond
//          Shape's limits).
// Limits:  header at most 100 MB; tensors of rank at most 4.
// Threads: const calls from any thread.
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/files/mapped_file.h"
#include "shared/base/error.h"
#include "shared/tensor/tensor.h"

namespace memslot {

struct SafetensorsEntry {
  std::string dtype;  // as written: "F32", "F16", "BF16", "I64", "U8", ...
  Shape shape;
  std::size_t begin = 0;  // in the whole file
  std::size_t end = 0;
};

struct SafetensorsIndex {
  std::map<std::string, SafetensorsEntry> tensors;
  std::map<std::string, std::string> metadata;

  static Result<SafetensorsIndex> parse(std::span<const std::byte> file);
};

// F32, F16, BF16 as f32. kNotSupported: any other dtype.
Result<HostTensor> read_f32(std::span<const std::byte> file, const SafetensorsEntry& entry);
// I64 and I32. kNotSupported: any other dtype.
Result<std::vector<std::int64_t>> read_i64(std::span<const std::byte> file,
                                           const SafetensorsEntry& entry);

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }
  const SafetensorsIndex& index() const { return index_; }
  // Null if there is none.
  const SafetensorsEntry* find(std::string_view name) const;
  // Reads and gives the pages back.
  Result<HostTensor> tensor(std::string_view name) const;
  Result<std::vector<std::int64_t>> ids(std::string_view name) const;

 private:
  SafetensorsFile(MappedFile file, SafetensorsIndex index)
      : file_(std::move(file)), index_(std::move(index)) {}
  Result<const SafetensorsEntry*> require(std::string_view name) const;

  MappedFile file_;
  SafetensorsIndex index_;
};

}  // namespace memslot
