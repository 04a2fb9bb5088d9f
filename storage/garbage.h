#pragma once
// Garbage collection: removes payloads that no head, history or branch refers to and that were put
// more than the grace period ago. A writer puts its payloads first and publishes afterwards, so
// `grace` must be longer than any writer takes in between, retries included (a retried put begins
// the period anew).
//
// Which payloads a version refers to is in its metadata: {"parts": {"<name>": "<token>", ...}}.
// A version whose metadata cannot be read might refer to anything: then nothing is removed and the
// error names the record.
//
// Where it removed something it compacts, so that no file holds the bytes afterwards.
//
// Threads: may run beside any use of the store.
#include <cstdint>

#include "storage/bank_store.h"

namespace memslot {

inline constexpr Duration kDefaultGrace = std::chrono::hours(1);

struct GarbageReport {
  std::uint64_t payloads = 0;  // seen
  std::uint64_t removed = 0;
  std::uint64_t removed_bytes = 0;
  std::uint64_t waiting = 0;  // unreferenced, but within the grace period
};

// kCorruption: unreadable metadata (nothing was removed); kTimeout: what was removed so far stays
// removed, call again.
Result<GarbageReport> collect_garbage(BankStore& store, const Clock& clock, Duration grace,
                                      TimePoint deadline);

}  // namespace memslot
