#pragma once
// The bank of memories: a typed layer over any BankStore.
//
// Records: "memory/<ns>/<id>" (versions and head), "branch/<ns>/<id>/<token>" (a lost
// compare-and-set, kept), "tombstone/<ns>/<id>" (erased, when), "stats/<ns>/<id>" (mutable
// statistics). A version's bytes are up to three payloads: "<token>:p" parameters, ":k" keys, ":s"
// source text; a rollback refers to the old version's.
//
// Namespaces are explicit in every call; a memory of another namespace is kNotFound, like none.
// Every call takes a deadline and returns kTimeout once it has passed; BankStore lists the other
// errors of the engine.
//
// Threads: every method may be called from any thread. Changes to one memory are serialised here;
//   a compare-and-set on the head decides between processes.
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/metrics.h"
#include "shared/memory/payload.h"
#include "shared/memory/record.h"
#include "storage/bank_store.h"

namespace memslot {

struct StoredMemory;     // a version and the tokens of its parts (record_metadata.h)
struct TombstoneRecord;  // what is remembered of an erased memory (record_metadata.h)

// What a writer offers. Borrows: the bytes must live until publish_memory() returns.
struct MemoryDraft {
  // ref.ns, ref.id, token, signature, dtype, source, origin, origin_id, created_unix_ms,
  // payload_bytes, sha256, stats and position are the caller's. keys is set from `keys`; parent
  // defaults to `expected`; version and branch are set by the bank.
  MemoryVersion meta;
  std::span<const std::byte> payload;
  const MemoryKeys* keys = nullptr;             // none if null
  std::optional<std::string_view> source_text;  // what it was learned from
  std::string expected;                         // token of the head it was made from, "" to create
};

// What publish_memory() checks before it touches the store.
Status check_draft(const MemoryDraft& draft);

struct PublishedMemory {
  // branch == true: the compare-and-set was lost and this is the branch (ref.version is 0).
  MemoryVersion version;
  std::string head_token;  // of the head when this returned
  bool conflict() const { return version.branch; }
};

struct MemoryFilter {
  std::string id_prefix;  // "" for all
  std::string source;     // "" for all
};

struct MemoryPage {
  std::vector<MemoryVersion> heads;  // by id, ascending
  std::string next;                  // opaque cursor; "" at the end
};

struct MemoryStatistics {
  std::uint64_t uses = 0;    // steps at which the memory was active
  std::uint64_t gains = 0;   // steps with a measured net gain
  double mean_net_gain = 0;  // nats per token, over `gains`
  friend bool operator==(const MemoryStatistics&, const MemoryStatistics&) = default;
};

struct VerifyReport {
  struct Bad {
    std::string record;   // "memory/default/x@3", or "" for a payload that no version names
    std::string payload;  // token
    std::string message;
  };
  std::uint64_t versions = 0;  // of memories, branches included
  std::uint64_t payloads = 0;
  std::uint64_t bytes = 0;
  std::vector<Bad> bad;
};

struct BankCounters {
  metrics::Counter published;  // versions that became the head; a retry is none
  metrics::Counter conflicts;  // compare-and-sets of a head that were lost
};

class MemoryBank {
 public:
  // `store` and `clock` must outlive the bank.
  MemoryBank(BankStore& store, const Clock& clock);

  // Verifies, stores the parts, then publishes. A retry with the same token is success, whatever
  // came after it. A lost compare-and-set keeps the state as a branch: see PublishedMemory.
  // kInvalidArgument: names, token, keys, metadata over 64 KiB; kMismatch: signature, dtype or kind
  // of the payload is not meta's, or its tensors are not those of its kind; kCorruption: size or
  // digest is not meta's, or the payload does not parse or is not finite; kNoSpace; kNotFound:
  // `expected` is not "" but there is no such memory (any more), or the token belongs to an erased
  // version; kIndeterminate: retry with the same token.
  Result<PublishedMemory> publish_memory(const MemoryDraft& draft, TimePoint deadline);

  // ref.version is ignored by head, history and branches.
  Result<MemoryVersion> head(const MemoryRef& ref, TimePoint deadline);
  Result<MemoryVersion> version(const MemoryRef& ref, TimePoint deadline);  // 0: the head
  // The version, or branch, that this token published.
  Result<MemoryVersion> version_of_token(const MemoryRef& ref, std::string_view token,
                                         TimePoint deadline);
  Result<std::vector<MemoryVersion>> history(const MemoryRef& ref,
                                             TimePoint deadline);  // oldest first
  Result<std::vector<MemoryVersion>> branches(const MemoryRef& ref, TimePoint deadline);
  // Heads of one namespace. `limit` 1 or more; a page may be short only at the end.
  Result<MemoryPage> list(std::string_view ns, const MemoryFilter& filter, std::string_view after,
                          std::size_t limit, TimePoint deadline);
  Result<std::vector<std::string>> namespaces(TimePoint deadline);  // that hold a memory

  // The parts of a version (found by ref and token; branches too). kNotFound if it is erased, or
  // (keys, source) was published without.
  Result<MemoryPayload> load_payload(const MemoryVersion& version, TimePoint deadline);
  Result<MemoryKeys> load_keys(const MemoryVersion& version, TimePoint deadline);
  Result<std::string> load_source(const MemoryVersion& version, TimePoint deadline);

  // Publishes the bytes of version `to` again as the new head, without copying them. The new
  // version's origin_id is the token of `to`; its parent is the head it replaced. kConflict.
  Result<MemoryVersion> rollback(const MemoryRef& ref, std::uint64_t to, std::string_view expected,
                                 std::string_view new_token, TimePoint deadline);

  // Forgets the memory: versions, branches, statistics, and the bytes of every payload and source
  // text on disk (the store is compacted: seconds per gigabyte). Leaves a tombstone with the time.
  // Made again, it counts versions on. After an error or a crash in the middle, call it again: it
  // goes on where it stopped, and is kNotFound only once it has ended.
  Status erase(const MemoryRef& ref, TimePoint deadline);
  struct Tombstone {
    std::int64_t erased_unix_ms = 0;
    std::uint64_t last_version = 0;
  };
  Result<Tombstone> tombstone(const MemoryRef& ref, TimePoint deadline);

  // One self-describing file (docs/formats/memory.md, "Export"): a version with its keys and
  // source.
  Result<std::vector<std::byte>> export_memory(const MemoryRef& ref, TimePoint deadline);
  // Publishes it in `ns` as `new_id` (or its own id) on top of whatever is there. Importing the
  // same version there again is success and changes nothing. kCorruption, kMismatch, kNotSupported.
  Result<MemoryVersion> import_memory(std::span<const std::byte> file, std::string_view ns,
                                      std::string_view new_id, TimePoint deadline);

  // Reads every payload in the store and, for memories, checks digest, form, finite numbers and
  // signature. `progress(done, total)` is called per payload; false stops it with kCancelled.
  using Progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;
  Result<VerifyReport> verify(const Progress& progress, TimePoint deadline);

  // Counts in memory only; flush_statistics() writes what changed since the last one, and a crash
  // in between loses only counts. `net_gain` in nats per token, if it was measured.
  void note_use(const MemoryRef& ref, std::optional<double> net_gain);
  Result<MemoryStatistics> statistics(const MemoryRef& ref, TimePoint deadline);
  Status flush_statistics(TimePoint deadline);

  BankStore& store() { return store_; }
  const BankCounters& counters() const { return counters_; }

 private:
  std::mutex& stripe(const MemoryRef& ref);
  // The version or branch that `token` published; kNotFound.
  Result<StoredMemory> find(const MemoryRef& ref, std::string_view token, TimePoint deadline);
  Result<std::vector<StoredMemory>> all_branches(const MemoryRef& ref, TimePoint deadline);
  Result<std::vector<StoredMemory>> all_versions(const MemoryRef& ref, TimePoint deadline);
  Status put_parts(const MemoryDraft& draft, StoredMemory& stored, TimePoint deadline);
  Result<PublishedMemory> publish_locked(const MemoryDraft& draft, bool refuse_erased,
                                         TimePoint deadline);
  Result<PublishedMemory> settle_conflict(const MemoryDraft& draft, StoredMemory& stored,
                                          TimePoint deadline);
  Result<std::string> bury(const MemoryRef& ref, std::span<const StoredMemory> versions,
                           TombstoneRecord& record, TimePoint deadline);
  Result<std::string> erase_records(const MemoryRef& ref, TombstoneRecord& record,
                                    TimePoint deadline);
  Status forget_statistics(const MemoryRef& ref, TimePoint deadline);

  BankStore& store_;
  const Clock& clock_;
  BankCounters counters_;
  std::array<std::mutex, 64> stripes_;
  std::mutex statistics_mutex_;
  std::map<std::string, MemoryStatistics> pending_;  // by "<ns>/<id>"; guarded by statistics_mutex_
};

}  // namespace memslot
