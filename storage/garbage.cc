#include "storage/garbage.h"

#include <string>
#include <unordered_set>

#include "storage/bank_format.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

constexpr std::size_t kPage = 1000;

Result<std::vector<PayloadInfo>> all_payloads(BankStore& store, TimePoint deadline) {
  std::vector<PayloadInfo> all;
  std::string after;
  do {
    MEMSLOT_TRY(auto page, store.list_payloads(after, kPage, deadline));
    all.insert(all.end(), page.entries.begin(), page.entries.end());
    after = page.next;
  } while (!after.empty());
  return all;
}

Status add_references(BankStore& store, const std::string& id,
                      std::unordered_set<std::string>& referenced, TimePoint deadline) {
  const auto versions = store.history(id, deadline);
  if (!versions && versions.error().code == ErrorCode::kNotFound) return ok();  // erased meanwhile
  if (!versions) return versions.error();
  for (const auto& version : versions.value()) {
    auto tokens = referenced_payloads(version.metadata);
    if (!tokens) return tokens.error().with_context("record " + id);
    referenced.insert(tokens.value().begin(), tokens.value().end());
  }
  return ok();
}

Result<std::unordered_set<std::string>> all_references(BankStore& store, TimePoint deadline) {
  std::unordered_set<std::string> referenced;
  std::string after;
  do {
    MEMSLOT_TRY(const auto page, store.list("", after, kPage, deadline));
    for (const auto& entry : page.entries) {
      MEMSLOT_TRY(add_references(store, entry.id, referenced, deadline));
    }
    after = page.next;
  } while (!after.empty());
  return referenced;
}

}  // namespace

Result<GarbageReport> collect_garbage(BankStore& store, const Clock& clock, Duration grace,
                                      TimePoint deadline) {
  const auto grace_ms = std::chrono::duration_cast<std::chrono::milliseconds>(grace).count();
  const std::int64_t newest = clock.unix_ms() - grace_ms;
  // Payloads first, records second: what is published in between is then seen as referenced.
  MEMSLOT_TRY(const auto payloads, all_payloads(store, deadline));
  MEMSLOT_TRY(const auto referenced, all_references(store, deadline));
  GarbageReport report;
  for (const auto& payload : payloads) {
    ++report.payloads;
    if (referenced.contains(payload.token)) continue;
    if (payload.put_unix_ms > newest) {
      ++report.waiting;
      continue;
    }
    MEMSLOT_TRY(store.erase_payload(payload.token, deadline));
    ++report.removed;
    report.removed_bytes += payload.bytes;
  }
  // What nobody refers to any more may be the text of a memory that was removed.
  if (report.removed > 0) {
    MEMSLOT_TRY(store.compact(deadline));
  }
  return report;
}

}  // namespace memslot
