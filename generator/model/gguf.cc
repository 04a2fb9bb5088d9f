#include "generator/model/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace memslot {
namespace {

constexpr std::uint64_t kMaxEntries = 65'536;
constexpr std::int64_t kDefaultAlignment = 32;

enum class ValueType : std::uint32_t {  // values are in the files
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Reads forward; every read checks what is left.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t at() const { return at_; }
  std::size_t left() const { return bytes_.size() - at_; }

  template <class T>
  Result<T> read() {
    if (left() < sizeof(T)) return short_by(sizeof(T));
    T value{};
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  Result<std::string> string() {
    MEMSLOT_TRY(const auto size, read<std::uint64_t>());
    if (left() < size) return short_by(size);
    std::string out(reinterpret_cast<const char*>(bytes_.data() + at_),
                    static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return out;
  }

 private:
  Error short_by(std::uint64_t wanted) const {
    return corrupt("gguf header at byte " + std::to_string(at_),
                   std::to_string(wanted) + " more bytes", std::to_string(left()));
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
};

template <class T>
Result<std::int64_t> read_integer(Cursor& cursor) {
  MEMSLOT_TRY(const auto value, cursor.read<T>());
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return corrupt("gguf integer", "at most 2^63 - 1", value);
    }
  }
  return static_cast<std::int64_t>(value);
}

Result<std::int64_t> read_integer(Cursor& cursor, ValueType type) {
  switch (type) {
    case ValueType::kU8: return read_integer<std::uint8_t>(cursor);
    case ValueType::kI8: return read_integer<std::int8_t>(cursor);
    case ValueType::kU16: return read_integer<std::uint16_t>(cursor);
    case ValueType::kI16: return read_integer<std::int16_t>(cursor);
    case ValueType::kU32: return read_integer<std::uint32_t>(cursor);
    case ValueType::kI32: return read_integer<std::int32_t>(cursor);
    case ValueType::kU64: return read_integer<std::uint64_t>(cursor);
    case ValueType::kI64: return read_integer<std::int64_t>(cursor);
    case ValueType::kBool: return read_integer<std::uint8_t>(cursor);
    case ValueType::kF32:
    case ValueType::kF64:
    case ValueType::kString:
    case ValueType::kArray: break;
  }
  return corrupt("gguf value type", "an integer type", static_cast<std::uint32_t>(type));
}

Result<double> read_real(Cursor& cursor, ValueType type) {
  if (type == ValueType::kF64) return cursor.read<double>();
  MEMSLOT_TRY(const auto value, cursor.read<float>());
  return static_cast<double>(value);
}

template <class T, class Read>
Result<GgufValue> read_elements(std::uint64_t count, std::size_t least_bytes, Cursor& cursor,
                                Read one) {
  // Before reserving: each element takes at least `least_bytes` of what is left.
  if (count > cursor.left() / least_bytes) {
    return corrupt("gguf array elements", "at most " + std::to_string(cursor.left() / least_bytes),
                   count);
  }
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i) {
    MEMSLOT_TRY(auto value, one());
    out.push_back(std::move(value));
  }
  return GgufValue(std::move(out));
}

Result<GgufValue> read_array(Cursor& cursor) {
  MEMSLOT_TRY(const auto raw, cursor.read<std::uint32_t>());
  MEMSLOT_TRY(const auto count, cursor.read<std::uint64_t>());
  const auto type = static_cast<ValueType>(raw);
  switch (type) {
    case ValueType::kString:
      return read_elements<std::string>(count, 8, cursor, [&] { return cursor.string(); });
    case ValueType::kF32:
      return read_elements<double>(count, 4, cursor, [&] { return read_real(cursor, type); });
    case ValueType::kF64:
      return read_elements<double>(count, 8, cursor, [&] { return read_real(cursor, type); });
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
    case ValueType::kU16:
    case ValueType::kI16:
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kU64:
    case ValueType::kI64:
      return read_elements<std::int64_t>(count, 1, cursor,
                                         [&] { return read_integer(cursor, type); });
    case ValueType::kArray:
      return Error{ErrorCode::kNotSupported, "gguf array: expected plain elements, found arrays"};
  }
  return corrupt("gguf array type", "0 to 12", raw);
}

Result<GgufValue> read_value(Cursor& cursor) {
  MEMSLOT_TRY(const auto raw, cursor.read<std::uint32_t>());
  const auto type = static_cast<ValueType>(raw);
  switch (type) {
    case ValueType::kF32:
    case ValueType::kF64: {
      MEMSLOT_TRY(const auto value, read_real(cursor, type));
      return GgufValue(value);
    }
    case ValueType::kBool: {
      MEMSLOT_TRY(const auto value, cursor.read<std::uint8_t>());
      return GgufValue(value != 0);
    }
    case ValueType::kString: {
      MEMSLOT_TRY(auto value, cursor.string());
      return GgufValue(std::move(value));
    }
    case ValueType::kArray: return read_array(cursor);
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kU16:
    case ValueType::kI16:
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kU64:
    case ValueType::kI64: {
      MEMSLOT_TRY(const auto value, read_integer(cursor, type));
      return GgufValue(value);
    }
  }
  return corrupt("gguf value type", "0 to 12", raw);
}

Status read_metadata(Cursor& cursor, std::uint64_t count, GgufIndex& index) {
  for (std::uint64_t i = 0; i < count; ++i) {
    MEMSLOT_TRY(auto key, cursor.string());
    auto value = read_value(cursor);
    if (!value) return value.error().with_context("gguf key '" + key.substr(0, 80) + "'");
    if (!index.metadata.emplace(key, std::move(value.value())).second) {
      return corrupt("gguf key '" + key.substr(0, 80) + "'", "once", "twice");
    }
  }
  return ok();
}

// entry.begin is still relative to the data, entry.end its size.
Result<GgufEntry> read_entry(Cursor& cursor) {
  MEMSLOT_TRY(const auto rank, cursor.read<std::uint32_t>());
  if (rank == 0 || rank > Shape::kMaxRank) return corrupt("tensor rank", "1 to 4", rank);
  std::vector<std::int64_t> dims(rank);
  for (std::uint32_t i = 0; i < rank; ++i) {
    MEMSLOT_TRY(dims[rank - 1 - i], read_integer<std::uint64_t>(cursor));
  }
  GgufEntry entry;
  MEMSLOT_TRY(entry.shape, Shape::make(dims));
  MEMSLOT_TRY(const auto type, cursor.read<std::uint32_t>());
  MEMSLOT_TRY(entry.type, parse_ggml_type(type));
  MEMSLOT_TRY(const auto offset, read_integer<std::uint64_t>(cursor));
  const auto info = ggml_type_info(entry.type);
  const auto columns = static_cast<std::size_t>(dims.back());
  if (columns % info.block_elements != 0) {
    return corrupt("columns of " + std::string(info.name),
                   "a multiple of " + std::to_string(info.block_elements), columns);
  }
  entry.begin = static_cast<std::size_t>(offset);
  entry.end =
      static_cast<std::size_t>(entry.shape.elements()) / info.block_elements * info.block_bytes;
  return entry;
}

Status read_tensors(Cursor& cursor, std::uint64_t count, GgufIndex& index) {
  for (std::uint64_t i = 0; i < count; ++i) {
    MEMSLOT_TRY(auto name, cursor.string());
    auto entry = read_entry(cursor);
    if (!entry) return entry.error().with_context("tensor '" + name.substr(0, 80) + "'");
    if (!index.tensors.emplace(name, std::move(entry.value())).second) {
      return corrupt("tensor '" + name.substr(0, 80) + "'", "once", "twice");
    }
  }
  return ok();
}

Result<std::size_t> alignment(const GgufIndex& index) {
  if (!index.metadata.contains("general.alignment")) return std::size_t{kDefaultAlignment};
  MEMSLOT_TRY(const auto value, index.integer("general.alignment"));
  if (value < 1 || value > 65'536 || (value & (value - 1)) != 0) {
    return corrupt("general.alignment", "a power of two up to 65536", value);
  }
  return static_cast<std::size_t>(value);
}

// Turns relative offsets into file positions, inside the file and free of overlap.
Status place_tensors(GgufIndex& index, std::size_t header_end, std::size_t file_size) {
  MEMSLOT_TRY(const auto align, alignment(index));
  const std::size_t data_begin = (header_end + align - 1) / align * align;
  const std::size_t room = file_size > data_begin ? file_size - data_begin : 0;
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (auto& [name, entry] : index.tensors) {
    const std::size_t offset = entry.begin, bytes = entry.end;
    if (offset % align != 0)
      return corrupt("offset of tensor '" + name.substr(0, 80) + "'",
                     "a multiple of " + std::to_string(align), offset);
    if (offset > room || bytes > room - offset) {
      return corrupt(
          "file bytes for tensor '" + name.substr(0, 80) + "'",
          "at least " + std::to_string(data_begin + offset) + " + " + std::to_string(bytes),
          file_size);
    }
    entry.begin = data_begin + offset;
    entry.end = entry.begin + bytes;
    ranges.emplace_back(entry.begin, entry.end);
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) {
      return corrupt("tensor at byte " + std::to_string(ranges[i].first), "no overlap",
                     "bytes of another tensor");
    }
  }
  return ok();
}

Error wrong_value(const std::string& key, std::string_view expected, bool present) {
  return corrupt("gguf key '" + key + "'", expected, present ? "another type" : "none");
}

}  // namespace

Result<GgufIndex> GgufIndex::parse(std::span<const std::byte> file) {
  Cursor cursor(file);
  if (file.size() < 24) return corrupt("gguf bytes", "at least 24", file.size());
  if (std::memcmp(file.data(), "GGUF", 4) != 0) {
    MEMSLOT_TRY(const auto found, cursor.read<std::uint32_t>());
    return corrupt("gguf magic", "'GGUF' (1179993927)", found);
  }
  GgufIndex index;
  MEMSLOT_TRY([[maybe_unused]] const auto magic, cursor.read<std::uint32_t>());
  MEMSLOT_TRY(index.version, cursor.read<std::uint32_t>());
  if (index.version != 2 && index.version != 3) {
    return Error{ErrorCode::kNotSupported,
                 "gguf version: expected 2 or 3, found " + std::to_string(index.version)};
  }
  MEMSLOT_TRY(const auto tensors, cursor.read<std::uint64_t>());
  MEMSLOT_TRY(const auto pairs, cursor.read<std::uint64_t>());
  if (tensors > kMaxEntries) return corrupt("gguf tensors", "at most 65536", tensors);
  if (pairs > kMaxEntries) return corrupt("gguf metadata pairs", "at most 65536", pairs);
  MEMSLOT_TRY(read_metadata(cursor, pairs, index));
  MEMSLOT_TRY(read_tensors(cursor, tensors, index));
  MEMSLOT_TRY(place_tensors(index, cursor.at(), file.size()));
  return index;
}

Result<std::int64_t> GgufIndex::integer(const std::string& key) const {
  if (const auto* value = find<std::int64_t>(key)) return *value;
  return wrong_value(key, "an integer", metadata.contains(key));
}

Result<double> GgufIndex::real(const std::string& key) const {
  if (const auto* value = find<double>(key)) return *value;
  return wrong_value(key, "a number", metadata.contains(key));
}

Result<std::string> GgufIndex::text(const std::string& key) const {
  if (const auto* value = find<std::string>(key)) return *value;
  return wrong_value(key, "text", metadata.contains(key));
}

Result<HostTensor> read_f32(std::span<const std::byte> file, const GgufEntry& entry) {
  HostTensor out{entry.shape, std::vector<float>(static_cast<std::size_t>(entry.shape.elements()))};
  dequantise(entry.type, file.subspan(entry.begin, entry.end - entry.begin), out.values);
  return out;
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  MEMSLOT_TRY(auto file, MappedFile::open(path));
  auto index = GgufIndex::parse(file.bytes());
  if (!index) return index.error().with_context(path);
  return GgufFile(std::move(file), std::move(index.value()));
}

const GgufEntry* GgufFile::find(std::string_view name) const {
  const auto it = index_.tensors.find(std::string(name));
  return it == index_.tensors.end() ? nullptr : &it->second;
}

Result<HostTensor> GgufFile::tensor(std::string_view name) const {
  const auto* entry = find(name);
  if (entry == nullptr) {
    return Error{ErrorCode::kNotFound,
                 path() + ": expected tensor '" + std::string(name) + "', found none"};
  }
  auto out = read_f32(file_.bytes(), *entry);
  file_.drop_pages(file_.bytes().subspan(entry->begin, entry->end - entry->begin));
  return out;
}

}  // namespace memslot
