#include "shared/files/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using Json = nlohmann::json;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

std::size_t element_bytes(std::string_view dtype) {  // 0: unknown
  static constexpr std::array<std::pair<std::string_view, std::size_t>, 15> kSizes{
      {{"F32", 4},
       {"F16", 2},
       {"BF16", 2},
       {"I64", 8},
       {"I32", 4},
       {"F64", 8},
       {"U64", 8},
       {"U32", 4},
       {"I16", 2},
       {"U16", 2},
       {"I8", 1},
       {"U8", 1},
       {"BOOL", 1},
       {"F8_E4M3", 1},
       {"F8_E5M2", 1}}};
  for (const auto& [name, bytes] : kSizes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// A list of non-negative integers; nullopt-like empty result is not enough, since [] is a shape.
bool read_list(const Json& json, std::vector<std::int64_t>& out) {
  if (!json.is_array()) return false;
  for (const auto& item : json) {
    // Through unsigned: a value over 2^63 must not turn negative.
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() >> 62 != 0) return false;
    out.push_back(item.get<std::int64_t>());
  }
  return true;
}

Result<SafetensorsEntry> parse_entry(const Json& json, std::size_t data_begin,
                                     std::size_t file_size) {
  std::vector<std::int64_t> dims, offsets;
  if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() ||
      !json.contains("shape") || !read_list(json["shape"], dims) ||
      !json.contains("data_offsets") || !read_list(json["data_offsets"], offsets) ||
      offsets.size() != 2) {
    return corrupt("header entry", "dtype, shape and data_offsets", dump_start(json, 120));
  }
  SafetensorsEntry entry;
  entry.dtype = json["dtype"].get<std::string>();
  const std::size_t width = element_bytes(entry.dtype);
  if (width == 0)
    return Error{ErrorCode::kNotSupported,
                 "dtype: expected a safetensors dtype, found '" + entry.dtype + "'"};
  MEMSLOT_TRY(entry.shape, Shape::make(dims));

  const auto begin = static_cast<std::size_t>(offsets[0]),
             end = static_cast<std::size_t>(offsets[1]);
  const std::size_t data_size = file_size - data_begin;
  if (begin > end || end > data_size) {
    return corrupt("data_offsets", "begin <= end <= " + std::to_string(data_size),
                   "[" + std::to_string(begin) + ", " + std::to_string(end) + "]");
  }
  const std::size_t expected = static_cast<std::size_t>(entry.shape.elements()) * width;
  if (end - begin != expected) return corrupt("tensor bytes", expected, end - begin);
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

Status check_coverage(const SafetensorsIndex& index, std::size_t data_begin,
                      std::size_t file_size) {
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  for (const auto& [name, entry] : index.tensors) ranges.emplace_back(entry.begin, entry.end);
  std::sort(ranges.begin(), ranges.end());
  std::size_t at = data_begin;
  for (const auto& [begin, end] : ranges) {
    if (begin != at) return corrupt("next tensor's offset", at - data_begin, begin - data_begin);
    at = end;
  }
  if (at != file_size) return corrupt("file bytes", at, file_size);
  return ok();
}

Status parse_metadata(const Json& json, std::map<std::string, std::string>& out) {
  if (!json.is_object()) return corrupt("__metadata__", "an object", json.type_name());
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      return corrupt("__metadata__ value of '" + key + "'", "text", value.type_name());
    out[key] = value.get<std::string>();
  }
  return ok();
}

}  // namespace

Result<SafetensorsIndex> SafetensorsIndex::parse(std::span<const std::byte> file) {
  if (file.size() < 8) return corrupt("safetensors bytes", "at least 8", file.size());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes > kMaxHeaderBytes)
    return corrupt("safetensors header bytes", "at most 100000000", header_bytes);
  if (header_bytes > file.size() - 8)
    return corrupt("safetensors header bytes", "at most " + std::to_string(file.size() - 8),
                   header_bytes);
  const auto* text = reinterpret_cast<const char*>(file.data() + 8);
  if (!json_depth_fits({text, static_cast<std::size_t>(header_bytes)})) {
    return corrupt("safetensors header nesting", "at most 64", "deeper");
  }
  const Json header = Json::parse(text, text + header_bytes, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return corrupt("safetensors header", "a JSON object",
                   header.is_discarded() ? "no JSON" : header.type_name());

  SafetensorsIndex index;
  const std::size_t data_begin = 8 + static_cast<std::size_t>(header_bytes);
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") {
      MEMSLOT_TRY(parse_metadata(json, index.metadata));
      continue;
    }
    auto entry = parse_entry(json, data_begin, file.size());
    if (!entry) return entry.error().with_context("tensor '" + name + "'");
    index.tensors.emplace(name, std::move(entry.value()));
  }
  MEMSLOT_TRY(check_coverage(index, data_begin, file.size()));
  return index;
}

Result<HostTensor> read_f32(std::span<const std::byte> file, const SafetensorsEntry& entry) {
  HostTensor out{entry.shape, std::vector<float>(static_cast<std::size_t>(entry.shape.elements()))};
  const std::byte* from = file.data() + entry.begin;
  if (entry.dtype == "F32") {
    if (!out.values.empty()) std::memcpy(out.values.data(), from, entry.end - entry.begin);
    return out;
  }
  const bool bf16 = entry.dtype == "BF16";
  if (!bf16 && entry.dtype != "F16")
    return Error{ErrorCode::kNotSupported,
                 "dtype: expected F32, F16 or BF16, found " + entry.dtype};
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    std::uint16_t half = 0;  // by memcpy: offsets need not be aligned
    std::memcpy(&half, from + 2 * i, 2);
    out.values[i] = bf16 ? bf16_to_f32(half) : f16_to_f32(half);
  }
  return out;
}

Result<std::vector<std::int64_t>> read_i64(std::span<const std::byte> file,
                                           const SafetensorsEntry& entry) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(entry.shape.elements()));
  const std::byte* from = file.data() + entry.begin;
  if (entry.dtype == "I64") {
    if (!out.empty()) std::memcpy(out.data(), from, entry.end - entry.begin);
    return out;
  }
  if (entry.dtype != "I32")
    return Error{ErrorCode::kNotSupported, "dtype: expected I64 or I32, found " + entry.dtype};
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::int32_t value = 0;
    std::memcpy(&value, from + 4 * i, 4);
    out[i] = value;
  }
  return out;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  MEMSLOT_TRY(auto file, MappedFile::open(path));
  auto index = SafetensorsIndex::parse(file.bytes());
  if (!index) return index.error().with_context(path);
  return SafetensorsFile(std::move(file), std::move(index.value()));
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.tensors.find(std::string(name));
  return it == index_.tensors.end() ? nullptr : &it->second;
}

Result<const SafetensorsEntry*> SafetensorsFile::require(std::string_view name) const {
  if (const auto* entry = find(name)) return entry;
  return Error{ErrorCode::kNotFound,
               path() + ": expected tensor '" + std::string(name) + "', found none"};
}

Result<HostTensor> SafetensorsFile::tensor(std::string_view name) const {
  MEMSLOT_TRY(const auto* entry, require(name));
  auto out = read_f32(file_.bytes(), *entry);
  file_.drop_pages(file_.bytes().subspan(entry->begin, entry->end - entry->begin));
  if (!out) return out.error().with_context(path() + ": tensor '" + std::string(name) + "'");
  return out;
}

Result<std::vector<std::int64_t>> SafetensorsFile::ids(std::string_view name) const {
  MEMSLOT_TRY(const auto* entry, require(name));
  auto out = read_i64(file_.bytes(), *entry);
  if (!out) return out.error().with_context(path() + ": tensor '" + std::string(name) + "'");
  return out;
}

}  // namespace memslot
