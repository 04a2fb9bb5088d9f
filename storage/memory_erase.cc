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

Result<std::string> MemoryBank::bury(const MemoryRef& ref, std::span<const StoredMemory> versions,
                                     TombstoneRecord& record, TimePoint deadline) {
  const std::string id = tombstone_record_id(ref);
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
  record.finished = false;
  std::string token = new_token(clock_);
  MEMSLOT_TRY(publish_resolved(store_, id, expected, token, encode_tombstone(record), deadline));
  MEMSLOT_TRY(store_.trim(id, 1, deadline));
  return token;
}

Status MemoryBank::forget_statistics(const MemoryRef& ref, TimePoint deadline) {
  auto forgotten = store_.erase(statistics_record_id(ref), "", deadline);
  if (!forgotten && forgotten.error().code != ErrorCode::kNotFound) return forgotten;
  const std::lock_guard statistics_lock(statistics_mutex_);
  pending_.erase(ref.ns + "/" + ref.id);
  return ok();
}

// Everything but the compaction. The tombstone's token; `record`: what it says.
Result<std::string> MemoryBank::erase_records(const MemoryRef& ref, TombstoneRecord& record,
                                              TimePoint deadline) {
  const std::lock_guard lock(stripe(ref));
  auto found = all_versions(ref, deadline);
  std::string tombstone;
  std::set<std::string> tokens;  // a rollback names the same parts again
  if (found) {
    std::vector<StoredMemory> memories = std::move(found).value();
    const std::string head = memories.back().version.token;
    MEMSLOT_TRY(const auto branches, all_branches(ref, deadline));
    memories.insert(memories.end(), branches.begin(), branches.end());
    // This order, so that an interruption anywhere leaves a memory that can be erased again, or a
    // tombstone that names what is left to erase.
    MEMSLOT_TRY(tombstone, bury(ref, memories, record, deadline));
    for (const auto& branch : branches) {
      auto erased = store_.erase(branch_record_id(ref, branch.version.token), "", deadline);
      if (!erased && erased.error().code != ErrorCode::kNotFound) return erased.error();
    }
    MEMSLOT_TRY(store_.erase(memory_record_id(ref), head, deadline));
    for (const auto& memory : memories) {
      tokens.insert({memory.parts.payload, memory.parts.keys, memory.parts.source});
    }
    tokens.erase("");
  } else {
    if (found.error().code != ErrorCode::kNotFound) return found.error();
    const auto grave = store_.head(tombstone_record_id(ref), deadline);
    if (!grave && grave.error().code != ErrorCode::kNotFound) return grave.error();
    if (!grave) return found.error();
    MEMSLOT_TRY(record, decode_tombstone(grave.value().metadata));
    if (record.finished) return found.error();
    tombstone = grave.value().token;
  }
  MEMSLOT_TRY(forget_statistics(ref, deadline));
  for (const auto& token : record.tokens) {
    for (const char* part : {":p", ":k", ":s"}) tokens.insert(token + part);
  }
  for (const auto& token : tokens) {
    MEMSLOT_TRY(store_.erase_payload(token, deadline));
  }
  return tombstone;
}

Status MemoryBank::erase(const MemoryRef& ref, TimePoint deadline) {
  TombstoneRecord record;
  MEMSLOT_TRY(const std::string tombstone, erase_records(ref, record, deadline));
  // Not under the lock: it takes seconds per gigabyte, and others' memories share the stripe.
  MEMSLOT_TRY(store_.compact(deadline));
  record.finished = true;
  const std::string id = tombstone_record_id(ref);
  const auto marked = publish_resolved(store_, id, tombstone, new_token(clock_),
                                       encode_tombstone(record), deadline);
  // The memory was made and erased again meanwhile: that erase ends what it began.
  if (!marked && marked.error().code == ErrorCode::kConflict) return ok();
  if (!marked) return marked.error();
  return store_.trim(id, 1, deadline);
}

Result<MemoryBank::Tombstone> MemoryBank::tombstone(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(check_name("namespace", ref.ns));
  MEMSLOT_TRY(check_name("memory id", ref.id));
  MEMSLOT_TRY(const auto head, store_.head(tombstone_record_id(ref), deadline));
  MEMSLOT_TRY(const auto record, decode_tombstone(head.metadata));
  return record.tombstone;
}

}  // namespace memslot
