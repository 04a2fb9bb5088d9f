#include "storage/record_metadata.h"

#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using nlohmann::json;

Result<json> parse_object(std::string_view text) {
  if (!json_depth_fits(text)) return corrupt("record metadata nesting", "at most 64", "deeper");
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return corrupt("record metadata", "a JSON object", "something else");
  return object;
}

// A text member; `fallback` where it is absent, kCorruption where it is something else.
Result<std::string> text_of(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end()) return std::string();
  if (!it->is_string())
    return corrupt(std::string("record metadata ") + key, "a string", it->type_name());
  return it->get<std::string>();
}

template <class T>
Result<T> number_of(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number()) {
    return corrupt(std::string("record metadata ") + key, "a number", "something else");
  }
  return it->get<T>();
}

std::string joined(std::string_view type, const MemoryRef& ref) {
  return std::string(type) + "/" + ref.ns + "/" + ref.id;
}

}  // namespace

std::string memory_record_id(const MemoryRef& ref) { return joined("memory", ref); }
std::string branch_record_id(const MemoryRef& ref, std::string_view token) {
  return joined("branch", ref) + "/" + std::string(token);
}
std::string tombstone_record_id(const MemoryRef& ref) { return joined("tombstone", ref); }
std::string statistics_record_id(const MemoryRef& ref) { return joined("stats", ref); }

Result<std::vector<std::string>> referenced_payloads(std::string_view metadata) {
  MEMSLOT_TRY(const auto object, parse_object(metadata));
  std::vector<std::string> tokens;
  const auto parts = object.find("parts");
  if (parts == object.end()) return tokens;
  if (!parts->is_object()) return corrupt("record metadata parts", "an object", parts->type_name());
  for (const auto& [name, token] : parts->items()) {
    if (!token.is_string()) return corrupt("record part " + name, "a token", token.type_name());
    tokens.push_back(token.get<std::string>());
  }
  return tokens;
}

std::string encode_memory(const StoredMemory& memory) {
  json object = json::parse(to_json(memory.version), nullptr, /*allow_exceptions=*/false);
  MEMSLOT_CHECK(object.is_object());
  auto& parts = object["parts"] = json::object();
  parts["payload"] = memory.parts.payload;
  if (!memory.parts.keys.empty()) parts["keys"] = memory.parts.keys;
  if (!memory.parts.source.empty()) parts["source"] = memory.parts.source;
  return dump(object);
}

Result<StoredMemory> decode_memory(const RecordVersion& record) {
  StoredMemory memory;
  MEMSLOT_TRY(memory.version, memory_version_from_json(record.metadata));
  memory.version.token = record.token;
  memory.version.ref.version = memory.version.branch ? 0 : record.number;
  MEMSLOT_TRY(const auto object, parse_object(record.metadata));
  const auto parts = object.find("parts");
  if (parts == object.end() || !parts->is_object()) {
    return corrupt("memory metadata parts", "an object", "something else");
  }
  MEMSLOT_TRY(memory.parts.payload, text_of(*parts, "payload"));
  MEMSLOT_TRY(memory.parts.keys, text_of(*parts, "keys"));
  MEMSLOT_TRY(memory.parts.source, text_of(*parts, "source"));
  return memory;
}

std::string encode_tombstone(const TombstoneRecord& record) {
  return dump(json{{"erased_unix_ms", record.tombstone.erased_unix_ms},
                   {"last_version", record.tombstone.last_version},
                   {"tokens", record.tokens},
                   {"finished", record.finished}});
}

Result<TombstoneRecord> decode_tombstone(std::string_view metadata) {
  MEMSLOT_TRY(const auto object, parse_object(metadata));
  TombstoneRecord record;
  MEMSLOT_TRY(record.tombstone.erased_unix_ms, number_of<std::int64_t>(object, "erased_unix_ms"));
  MEMSLOT_TRY(record.tombstone.last_version, number_of<std::uint64_t>(object, "last_version"));
  const auto tokens = object.find("tokens");
  if (tokens == object.end() || !tokens->is_array()) {
    return corrupt("tombstone tokens", "an array", "something else");
  }
  for (const auto& token : *tokens) {
    if (!token.is_string()) return corrupt("tombstone token", "a string", token.type_name());
    record.tokens.push_back(token.get<std::string>());
  }
  // Absent in a bank of before: repeating a finished erase does no harm.
  record.finished = object.value("finished", json()) == true;
  return record;
}

std::string encode_statistics(const MemoryStatistics& s) {
  return dump(json{{"uses", s.uses}, {"gains", s.gains}, {"mean_net_gain", s.mean_net_gain}});
}

Result<MemoryStatistics> decode_statistics(std::string_view metadata) {
  MEMSLOT_TRY(const auto object, parse_object(metadata));
  MemoryStatistics s;
  MEMSLOT_TRY(s.uses, number_of<std::uint64_t>(object, "uses"));
  MEMSLOT_TRY(s.gains, number_of<std::uint64_t>(object, "gains"));
  MEMSLOT_TRY(s.mean_net_gain, number_of<double>(object, "mean_net_gain"));
  return s;
}

std::string encode_document(const Document& document) {
  json object = {{"document", document.json}, {"blob_bytes", document.blob_bytes}};
  object["parts"] = json::object();
  if (!document.blob_token.empty()) object["parts"]["blob"] = document.blob_token;
  return dump(object);
}

Result<Document> decode_document(const RecordVersion& record) {
  MEMSLOT_TRY(const auto object, parse_object(record.metadata));
  Document document;
  document.token = record.token;
  document.number = record.number;
  MEMSLOT_TRY(document.json, text_of(object, "document"));
  MEMSLOT_TRY(document.blob_bytes, number_of<std::uint64_t>(object, "blob_bytes"));
  const auto parts = object.find("parts");
  if (parts == object.end() || !parts->is_object()) {
    return corrupt("document parts", "an object", "something else");
  }
  MEMSLOT_TRY(document.blob_token, text_of(*parts, "blob"));
  return document;
}

bool is_json(std::string_view text) { return json::accept(text); }

}  // namespace memslot
