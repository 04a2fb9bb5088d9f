#pragma once
// The traces that this controller keeps: one append-only file each, FOLDER/ID.trace
// (docs/formats/trace.md), and what is needed of each to list and search them, in memory.
//
// Operation:   load() reads what is there; what a crash cut off behind the last whole frame is cut
//              away before more is appended. Bytes reach the file before take() and add() return,
//              but are not synced: kill -9 loses none, a power cut may lose the last.
// Retention:   over `age`, or `bytes` in all, the oldest go; for their bytes those under way last.
// Errors:      kCorruption (frames that do not decode: nothing is kept of them), kNotFound,
//              kNoSpace, kIo.
// Threads:     any.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "shared/trace/reader.h"

namespace memslot {

struct TraceLimits {
  std::uint64_t bytes = std::uint64_t{1} << 30;
  Duration age = std::chrono::hours(30 * 24);
};

struct TraceSummary {
  std::string id;
  std::int64_t created_unix_ms = 0;
  trace::Origin origin = trace::Origin::kWritten;
  std::vector<std::string> namespaces;
  std::string prompt;              // its beginning, at most kPromptHead bytes
  std::string policy;              // in full; "": the user chose
  std::set<std::string> memories;  // NS/ID of what was active
  std::uint64_t steps = 0, tokens = 0, bytes = 0;
  bool ended = false;
  std::string finish, error;
};

struct TraceQuery {
  // Whether the asker may see a trace of these namespaces.
  std::function<bool(const std::vector<std::string>&)> visible;
  // Whether one of a trace's memories is meant; empty: any trace.
  std::function<bool(const std::set<std::string>&)> memories{};
  std::string policy;  // "" for all
  std::int64_t since_unix_ms = 0;
  std::int64_t until_unix_ms = std::numeric_limits<std::int64_t>::max();
  std::string after;  // the last id of the page before
  std::size_t limit = 100;
};

// What copy_to() left in `from` into `to`, which is made: what is there already stays. How many; 0
// where there is no `from`.
Result<std::size_t> restore_traces(const std::string& from, const std::string& to);

class TraceStore {
 public:
  static constexpr std::size_t kPromptHead = 160;

  // `folder` "": nothing is kept. The clock must outlive the store.
  TraceStore(std::string folder, TraceLimits limits, const Clock& clock);
  ~TraceStore();

  // Makes the folder where it is missing. What cannot be read is logged and left alone.
  Status load();
  bool keeps() const { return !folder_.empty(); }
  bool has(std::uint64_t session) const;
  struct Usage {
    std::size_t traces = 0;
    std::uint64_t bytes = 0;
  };
  Usage usage() const;

  // Whole frames of a generator, which spell their memories themselves; a `sequence` that is not
  // above the newest was sent again, and is left. The first of a trace hold its Start, with
  // namespaces that `allowed` accepts (kPermission). kNotFound: no such trace, and no Start.
  Status take(std::uint64_t session, std::uint64_t sequence, std::span<const std::byte> frames,
              const std::function<bool(const std::vector<std::string>&)>& allowed);
  // Whole frames of this controller. kNotFound: no such trace.
  Status add(std::uint64_t session, std::span<const std::byte> frames);

  std::vector<TraceSummary> list(const TraceQuery& query) const;  // newest first
  Result<TraceSummary> summary(const std::string& id) const;
  Result<std::vector<std::byte>> bytes(const std::string& id) const;
  Status erase(const std::string& id);
  // Every trace as it is now into `folder`, which is made; how many. What is there already stays.
  Result<std::size_t> copy_to(const std::string& folder) const;
  // Those in which the memory was active hold text that it may have spoken; how many.
  std::size_t forget(const MemoryRef& memory);
  void keep_limits();

 private:
  struct Entry;
  using Entries = std::map<std::uint64_t, Entry>;
  std::string path_of(std::uint64_t session) const;
  Status write(std::uint64_t session, Entry& entry, TraceSummary summary,
               std::span<const std::byte> frames, bool made);
  Status load_one(std::uint64_t session, const std::string& path);
  void remove(Entries::iterator entry);
  bool was_removed(const TraceSummary& trace) const;

  const std::string folder_;
  const TraceLimits limits_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  Entries entries_;                                         // guarded by mutex_
  std::set<std::pair<std::int64_t, std::uint64_t>> order_;  // (created, session); guarded by mutex_
  std::map<std::string, std::int64_t> removed_;             // memories, and when; guarded by mutex_
  std::uint64_t total_ = 0;                                 // bytes; guarded by mutex_
};

}  // namespace memslot
