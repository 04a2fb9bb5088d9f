#include "controller/link/bank_verbs.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include "shared/base/json_dump.h"

namespace memslot::bank_verbs {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const MemoryVersion& version) { return Json::parse(to_json(version)); }

Json json_of(const std::vector<MemoryVersion>& versions) {
  Json out = Json::array();
  for (const MemoryVersion& version : versions) out.push_back(json_of(version));
  return out;
}

// Heads that the bank is asked for at once: at 64 KiB at most they fit a reply beside kPageBytes.
constexpr std::size_t kHeadsAtOnce = 16;

void append(std::string& array, const std::string& json) {
  if (!array.empty()) array += ',';
  array += json;
}

std::string page_of(const char* name, const std::string& array, const Json& next) {
  return "{\"" + std::string(name) + "\":[" + array + "],\"next\":" + dump(next) + "}";
}

std::uint64_t bytes_under(const std::string& directory) {
  std::uint64_t total = 0;
  std::error_code failed;
  for (auto it = std::filesystem::recursive_directory_iterator(directory, failed);
       !failed && it != std::filesystem::recursive_directory_iterator(); it.increment(failed)) {
    std::error_code no_file;
    const auto size = it->file_size(no_file);
    if (!no_file) total += size;
  }
  return total;
}

// "<namespace>|<the bank's cursor>": a listing goes through namespaces one after the other.
struct Cursor {
  std::string ns, after;
};
Cursor parse_cursor(const std::string& text) {
  const std::size_t bar = text.find('|');
  if (bar == std::string::npos) return {text, ""};
  return {text.substr(0, bar), text.substr(bar + 1)};
}

}  // namespace

Result<std::string> list(MemoryBank& bank, const ListQuery& query, TimePoint deadline) {
  const Cursor cursor = parse_cursor(query.after);
  const MemoryFilter filter{.id_prefix = query.prefix, .source = query.source};
  std::string memories;
  std::size_t count = 0;
  const auto full = [&] { return count == query.limit || memories.size() >= kPageBytes; };
  for (const std::string& ns : query.namespaces) {
    if (ns < cursor.ns) continue;
    std::string after = ns == cursor.ns ? cursor.after : "";
    do {
      if (full()) return page_of("memories", memories, Json(ns + "|" + after));
      const std::size_t wanted = std::min(query.limit - count, kHeadsAtOnce);
      MEMSLOT_TRY(const auto page, bank.list(ns, filter, after, wanted, deadline));
      for (const MemoryVersion& head : page.heads) append(memories, to_json(head));
      count += page.heads.size();
      after = page.next;
    } while (!after.empty());
  }
  return page_of("memories", memories, Json(""));
}

Result<std::string> show(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(const MemoryVersion version, bank.version(ref, deadline));
  MEMSLOT_TRY(const auto branches, bank.branches(ref, deadline));
  MEMSLOT_TRY(const MemoryStatistics statistics, bank.statistics(ref, deadline));
  const auto source = bank.load_source(version, deadline);
  if (!source && source.error().code != ErrorCode::kNotFound) return source.error();
  Json json = {{"version", json_of(version)},
               {"branches", json_of(branches)},
               {"uses", statistics.uses},
               {"mean_net_gain", statistics.gains > 0 ? Json(statistics.mean_net_gain) : Json()}};
  json["source_text"] = source ? Json(source.value()) : Json();
  return dump(json);
}

Result<std::string> history(MemoryBank& bank, const MemoryRef& ref, std::uint64_t after,
                            TimePoint deadline) {
  MEMSLOT_TRY(const auto versions, bank.history(ref, deadline));
  std::string out;
  std::uint64_t last = 0;
  for (const MemoryVersion& version : versions) {
    if (version.ref.version <= after) continue;
    if (out.size() >= kPageBytes) return page_of("versions", out, Json(last));
    append(out, to_json(version));
    last = version.ref.version;
  }
  return page_of("versions", out, Json(0));
}

Result<std::string> rollback(MemoryBank& bank, const Clock& clock, const MemoryRef& ref,
                             std::uint64_t to, TimePoint deadline) {
  MEMSLOT_TRY(const MemoryVersion head, bank.head(ref, deadline));
  MEMSLOT_TRY(const auto version, bank.rollback(ref, to, head.token, new_token(clock), deadline));
  return dump(Json{{"version", json_of(version)}});
}

Result<std::string> erase(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(bank.erase(ref, deadline));
  return dump(Json{{"erased", MemoryRef{ref.ns, ref.id, 0}.text()}});
}

Result<Exported> export_file(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(const MemoryVersion version, bank.version(ref, deadline));
  MEMSLOT_TRY(auto file, bank.export_memory(version.ref, deadline));
  return Exported{dump(Json{{"version", json_of(version)}}), share_bytes(std::move(file))};
}

Result<Imported> import_file(MemoryBank& bank, std::span<const std::byte> file, std::string_view ns,
                             std::string_view id, TimePoint deadline) {
  MEMSLOT_TRY(const MemoryVersion version, bank.import_memory(file, ns, id, deadline));
  return Imported{dump(Json{{"version", json_of(version)}}), version.ref};
}

Result<std::string> backup(MemoryBank& bank, const std::string& directory, TimePoint deadline) {
  MEMSLOT_TRY(bank.flush_statistics(deadline));
  MEMSLOT_TRY(bank.store().backup(directory, deadline));
  return dump(Json{{"directory", directory}, {"bytes", bytes_under(directory)}});
}

Result<std::string> usage(MemoryBank& bank, std::size_t memories, TimePoint deadline) {
  MEMSLOT_TRY(const StoreUsage usage, bank.store().usage(deadline));
  return dump(Json{{"payload_bytes", usage.payload_bytes},
                   {"disk_bytes", usage.disk_bytes},
                   {"quota_bytes", usage.quota_bytes},
                   {"memories", memories}});
}

std::string verified(const VerifyReport& report,
                     const std::function<bool(std::string_view ns)>& sees) {
  Json bad = Json::array();
  for (const VerifyReport::Bad& item : report.bad) {
    // "<type>/<namespace>/...": see memory_bank.h.
    const std::size_t first = item.record.find('/');
    const std::size_t second = item.record.find('/', first + 1);
    const bool named = first != std::string::npos && second != std::string::npos;
    if (named && !sees(item.record.substr(first + 1, second - first - 1))) continue;
    bad.push_back({{"record", item.record}, {"payload", item.payload}, {"message", item.message}});
  }
  return dump(Json{{"type", "verified"},
                   {"versions", report.versions},
                   {"payloads", report.payloads},
                   {"bytes", report.bytes},
                   {"damaged", report.bad.size()},
                   {"bad", std::move(bad)}});
}

}  // namespace memslot::bank_verbs
