#pragma once
// Reading the GGUF format (versions 2 and 3, little-endian).
//
//   "GGUF" | u32 version | u64 tensors | u64 metadata pairs
//   pair:   string key | u32 type | value          string: u64 bytes | bytes
//   tensor: string name | u32 rank | u64 dims[rank], innermost first | u32 ggml type | u64 offset
//   padding to general.alignment (32 if absent) | data; offsets count from here
//
// Errors:  kCorruption (magic, truncated, counts, duplicate names, offsets or sizes outside the
//          file), kNotSupported (version, element type, nested arrays), kInvalidArgument (rank or
//          elements beyond Shape's limits).
// Limits:  65,536 tensors and as many metadata pairs.
// Threads: const calls from any thread.
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "generator/model/gguf_dequant.h"
#include "shared/files/mapped_file.h"
#include "shared/base/error.h"
#include "shared/tensor/tensor.h"

namespace memslot {

// All integers as i64 (a u64 over 2^63 - 1 is refused), bools apart, both float widths as f64.
using GgufValue = std::variant<std::int64_t, double, bool, std::string, std::vector<std::int64_t>,
                               std::vector<double>, std::vector<std::string>>;

struct GgufEntry {
  GgmlType type = GgmlType::kF32;
  Shape shape;            // outermost first: (out, in)
  std::size_t begin = 0;  // in the whole file
  std::size_t end = 0;
};

struct GgufIndex {
  std::uint32_t version = 0;
  std::map<std::string, GgufValue> metadata;
  std::map<std::string, GgufEntry> tensors;

  static Result<GgufIndex> parse(std::span<const std::byte> file);

  // kCorruption: the key is absent or of another type.
  Result<std::int64_t> integer(const std::string& key) const;
  Result<double> real(const std::string& key) const;
  Result<std::string> text(const std::string& key) const;
  // Null if absent or of another type.
  template <class T>
  const T* find(const std::string& key) const {
    const auto it = metadata.find(key);
    return it == metadata.end() ? nullptr : std::get_if<T>(&it->second);
  }
};

Result<HostTensor> read_f32(std::span<const std::byte> file, const GgufEntry& entry);

class GgufFile {
 public:
  static Result<GgufFile> open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }
  const GgufIndex& index() const { return index_; }
  const GgufEntry* find(std::string_view name) const;  // null if there is none
  // Reads and gives the pages back. kNotFound: no such tensor.
  Result<HostTensor> tensor(std::string_view name) const;

 private:
  GgufFile(MappedFile file, GgufIndex index) : file_(std::move(file)), index_(std::move(index)) {}

  MappedFile file_;
  GgufIndex index_;
};

}  // namespace memslot
