// MemoryBank: forgetting a memory.
#include <algorithm>
#include <set>

#include "storage/bank_format.h"
#include "storage/memory_bank.h"
#include "storage/publish.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

// Enough for every retry that can still be under way; a tombstone stays far below 1 MiB.
constexpr std::size_t kRememberedTokens = 2000;

}  // namespace

Status MemoryBank::bury(const MemoryRef& ref, std::span<const StoredMemory> versions,
                        TimePoint deadline) {
  const std::string id = tombstone_record_id(ref);
  TombstoneRecord record;
  std::string expected;
  const auto old = store_.head(id, deadline);
  if (old) {
    MEMSLOT_TRY(record, decode_tombstone(old.value().metadata));
    expected = old.value().token;
  } else if (old.error().code != ErrorCode::kNotFound) {
    return old.error();
  }
  record.tombstone.erased_unix_ms = clock_.unix_ms();
  for (const auto& memory : versions) {
    record.tombstone.last_version =
        std::max(record.tombstone.last_version, memory.version.ref.version);
    record.tokens.push_back(memory.version.token);
  }
  if (record.tokens.size() > kRememberedTokens) {
    const auto surplus = static_cast<std::ptrdiff_t>(record.tokens.size() - kRememberedTokens);
    record.tokens.erase(record.tokens.begin(), record.tokens.begin() + surplus);
  }
  MEMSLOT_TRY(publish_resolved(store_, id, expected, new_token(clock_), encode_tombstone(record),
                               deadline));
  return store_.trim(id, 1, deadline);
}

Status MemoryBank::erase(const MemoryRef& ref, TimePoint deadline) {
  const std::lock_guard lock(stripe(ref));
  MEMSLOT_TRY(auto memories, all_versions(ref, deadline));
  const std::string head = memories.back().version.token;
  MEMSLOT_TRY(const auto branches, all_branches(ref, deadline));
  memories.insert(memories.end(), branches.begin(), branches.end());
  // This order, so that a crash anywhere leaves either a memory that can be erased again, or
  // payloads that nothing refers to and that garbage collection removes.
  MEMSLOT_TRY(bury(ref, memories, deadline));
  for (const auto& branch : branches) {
    auto erased = store_.erase(branch_record_id(ref, branch.version.token), "", deadline);
    if (!erased && erased.error().code != ErrorCode::kNotFound) return erased;
  }
  MEMSLOT_TRY(store_.erase(memory_record_id(ref), head, deadline));
  auto forgotten = store_.erase(statistics_record_id(ref), "", deadline);
  if (!forgotten && forgotten.error().code != ErrorCode::kNotFound) return forgotten;
  {
    const std::lock_guard statistics_lock(statistics_mutex_);
    pending_.erase(ref.ns + "/" + ref.id);
  }
  std::set<std::string> tokens;  // a rollback names the same parts again
  for (const auto& memory : memories) {
    tokens.insert({memory.parts.payload, memory.parts.keys, memory.parts.source});
  }
  tokens.erase("");
  for (const auto& token : tokens) {
    MEMSLOT_TRY(store_.erase_payload(token, deadline));
  }
  return store_.compact(deadline);
}

Result<MemoryBank::Tombstone> MemoryBank::tombstone(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(check_name("namespace", ref.ns));
  MEMSLOT_TRY(check_name("memory id", ref.id));
  MEMSLOT_TRY(const auto head, store_.head(tombstone_record_id(ref), deadline));
  MEMSLOT_TRY(const auto record, decode_tombstone(head.metadata));
  return record.tombstone;
}

}  // namespace memslot
