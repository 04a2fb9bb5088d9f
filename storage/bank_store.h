#pragma once
// The engine-neutral interface of the bank. Everything durable is a *record*: a chain of immutable
// versions and one head. It asks of an engine only what a distributed object store offers:
// immutable blobs, and compare-and-set on one record's head. No transaction over several records.
//
//   put_payload, then publish. A writer that dies or loses in between leaves an orphan payload,
//   which garbage collection removes after a grace period (garbage.h).
//
// Record ids are opaque bytes, 1 to 512 long; by convention "<type>/<namespace>/<name>". Tokens are
// unique and opaque, 1 to 128 bytes of [A-Za-z0-9._:-]; the caller makes them (new_token()).
//
// Errors: kNotFound, kConflict, kCorruption (a digest does not match), kIndeterminate (the outcome
// of
//   a publish is unknown: re-read head() and compare tokens), kTimeout (a read's deadline passed,
//   or nothing was written), kNoSpace (disk or quota), kBusy (another process holds the bank), kIo.
// Threads: every method may be called from any thread.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/error.h"

namespace memslot {

inline constexpr std::size_t kMaxBlobBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxMetadataBytes = std::size_t{1} << 20;

// The head of a record, or one entry of its history.
struct RecordVersion {
  std::string token;
  std::string parent;        // the token that was the head before; "" for the first
  std::uint64_t number = 0;  // 1, 2, ... in publish order; never reused
  std::string metadata;      // opaque to the store; about 1 KB
  friend bool operator==(const RecordVersion&, const RecordVersion&) = default;
};

struct RecordPage {
  struct Entry {
    std::string id;
    RecordVersion head;
  };
  std::vector<Entry> entries;  // by id, ascending
  std::string next;            // opaque cursor; "" at the end
};

struct PayloadInfo {
  std::string token;
  std::uint64_t bytes = 0;
  std::int64_t put_unix_ms = 0;
};
struct PayloadPage {
  std::vector<PayloadInfo> entries;  // by token, ascending
  std::string next;
};

struct StoreUsage {
  std::uint64_t payload_bytes = 0;  // sum of stored payloads
  std::uint64_t disk_bytes = 0;     // what the engine occupies
  std::uint64_t quota_bytes = 0;    // 0: none
  std::uint64_t records = 0;        // estimate allowed
  std::uint64_t compactions = 0;    // that the engine has finished since it was opened
};

class BankStore {
 public:
  virtual ~BankStore() = default;

  // Immutable: a second put of the same token succeeds if the bytes are equal, else kConflict; it
  // renews put_unix_ms, so that a retry has the whole grace period before it again.
  // Durable on return. kInvalidArgument over kMaxBlobBytes.
  virtual Status put_payload(std::string_view token, std::span<const std::byte> bytes,
                             TimePoint deadline) = 0;
  // The digest is checked on every read.
  virtual Result<std::vector<std::byte>> get_payload(std::string_view token,
                                                     TimePoint deadline) = 0;
  // No error if absent.
  virtual Status erase_payload(std::string_view token, TimePoint deadline) = 0;
  virtual Result<PayloadPage> list_payloads(std::string_view after, std::size_t limit,
                                            TimePoint deadline) = 0;

  // The only compare-and-set. `expected` is the token of the head, "" to create. Durable on return.
  // kConflict: the head is another one (read it with head()); kIndeterminate.
  // A publish of the token that already is the head succeeds again (a retry); a token of an older
  // version of the record is kConflict.
  virtual Result<RecordVersion> publish(std::string_view id, std::string_view expected,
                                        std::string_view token, std::string_view metadata,
                                        TimePoint deadline) = 0;
  virtual Result<RecordVersion> head(std::string_view id, TimePoint deadline) = 0;
  // Oldest first. kNotFound if the record does not exist.
  virtual Result<std::vector<RecordVersion>> history(std::string_view id, TimePoint deadline) = 0;
  // Records whose id starts with `prefix`, after the cursor. No snapshot across pages.
  virtual Result<RecordPage> list(std::string_view prefix, std::string_view after,
                                  std::size_t limit, TimePoint deadline) = 0;
  // Removes head and history; expected "" erases whatever is there. Payloads stay until erased. A
  // record that is made again under this id goes on counting where this one ended. kNotFound.
  virtual Status erase(std::string_view id, std::string_view expected, TimePoint deadline) = 0;
  // Drops the oldest history entries so that at most `keep` (1 or more) remain, the head included;
  // for records that change often and whose past nobody asks for (jobs, statistics). kNotFound.
  virtual Status trim(std::string_view id, std::size_t keep, TimePoint deadline) = 0;

  virtual Result<StoreUsage> usage(TimePoint deadline) = 0;
  // Gives the disk space of erased payloads and records back, and with it their bytes: afterwards
  // no file of the store holds them. Rewrites what is live, so it takes seconds per gigabyte.
  virtual Status compact(TimePoint deadline) = 0;
  // A consistent copy of the whole store into an empty or absent directory, while it is in use.
  virtual Status backup(const std::string& directory, TimePoint deadline) = 0;
};

// A token for a new version: "<unix ms base36>-<nonce>"; sorts roughly by time.
std::string new_token(const Clock& clock);

}  // namespace memslot
