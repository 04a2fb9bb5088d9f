#pragma once
// Keeps the candidate index and the catalog equal to the bank: made from it at the start, refreshed
// memory by memory as heads move, and made anew with fresh statistics, beside the steps, when keys
// have outgrown them. Statistics outlive the process in the bank (whitening_shelf.h), so that an
// index made again compares as the one before did.
//
// What it takes to search, too, outlives it: as files (index_files.h), read by build() and written
// by it and by keep() where they lack more than a tenth. An index made anew beside the steps, with
// other statistics, is written at the end only: after a kill the next start makes it anew.
//
// Operation:   build() at the start, keep() at the end; changed() after every publish, rollback or
//              erase; adopt() when `ready` was called; retry() now and then.
// Concurrency: everything on the owner's thread, but for the build in the background, which has its
//              own and calls `ready` from it.
// Lifecycle:   the destructor waits for a build in flight (it stops at the next memory).
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "controller/step/candidate_index.h"
#include "controller/step/catalog.h"
#include "controller/step/index_files.h"
#include "controller/step/whitening_shelf.h"
#include "storage/memory_bank.h"

namespace memslot {

class IndexKeeper {
 public:
  static constexpr std::uint64_t kKeptFrom = 10'000;  // keys: fewer are indexed in a second

  // `bank`, `clock` and `documents` must outlive the keeper. Without documents statistics are
  // fitted anew by every build. `files`: a folder for an index of `kept_from` keys or more; "": it
  // is made by every start.
  IndexKeeper(MemoryBank& bank, const Clock& clock, std::function<void()> ready,
              DocumentBank* documents = nullptr, std::string files = {},
              std::uint64_t kept_from = kKeptFrom);
  ~IndexKeeper();

  // Reads all heads, and the keys of those that the files do not have. A memory whose keys cannot
  // be read is indexed without (and logged).
  Status build();
  void keep();  // as files, where these lack much or hold what is not used any more
  CandidateIndex& index() { return *index_; }
  const Catalog& catalog() const { return catalog_; }
  // A step on which the memory was active; null: its gain is not known.
  void note_use(std::string_view ns, std::string_view id, const float* net_gain);

  // The memory's head moved, appeared or went. Begins a build in the background if one is due.
  void changed(const MemoryRef& ref);
  void rebuild();                                   // on demand, in the background
  std::uint64_t builds() const { return builds_; }  // begun so far, the first one included
  // Keys are whitened so from now on where it fits: what is indexed otherwise is made anew in the
  // background (a build in flight is followed by another). Null: fitted on the bank's own keys.
  void pin(std::shared_ptr<const CandidateIndex::Pinned> pinned);
  // What could not be read for a reason that passes (a slow bank) is read again: one memory a call,
  // in turns, each for kRetryTime at most, or a build that failed. After a failure not for
  // kRetryAfter, after another twice as long, up to kRetryAtMost.
  void retry();
  static constexpr Duration kRetryAfter = std::chrono::seconds(10);
  static constexpr Duration kRetryAtMost = std::chrono::minutes(5);
  static constexpr Duration kRetryTime = std::chrono::seconds(1);
  // Takes a finished build over; what changed meanwhile is read again. False if there is none.
  bool adopt();

 private:
  using Built = std::unique_ptr<CandidateIndex>;
  using PinnedPtr = std::shared_ptr<const CandidateIndex::Pinned>;  // shared with what was built
  using Names = std::set<std::pair<std::string, std::string>>;      // (ns, id)
  // `unread`: gets those whose keys are to be read again.
  Result<Built> make_index(std::uint64_t version, PinnedPtr pinned, Names& unread);
  Result<CandidateIndex::Statistics> fit(const std::vector<MemoryVersion>& heads,
                                         std::uint64_t version,
                                         const CandidateIndex::Pinned* pinned);
  Result<std::vector<MemoryVersion>> read_heads();
  Result<MemoryKeys> read_keys(const MemoryVersion& version, TimePoint deadline);
  // None (and logged) where they cannot be read.
  MemoryKeys keys_of(const MemoryVersion& version, Names& unread);
  IndexedMemory counted(const MemoryVersion& head, TimePoint deadline);
  void refresh(const MemoryRef& ref, TimePoint deadline);
  void changed(const MemoryRef& ref, TimePoint deadline);
  bool stale() const;      // whitened otherwise than is pinned
  void keep_statistics();  // in the bank, where they are new
  bool much_unkept() const;
  TimePoint soon() const;

  MemoryBank& bank_;
  const Clock& clock_;
  const std::function<void()> ready_;
  std::optional<WhiteningShelf> shelf_;
  IndexFiles files_;
  const std::uint64_t kept_from_;
  std::uint64_t unkept_ = 0;  // keys that the files lack
  bool outdated_ = false;     // they hold what is not used any more
  Built index_;
  Catalog catalog_;
  PinnedPtr pinned_;
  std::uint64_t builds_ = 0;
  std::thread builder_;
  bool building_ = false;
  Names changed_;  // since the build began
  Names unread_;   // for retry(), as the next four
  bool build_again_ = false;
  std::pair<std::string, std::string> tried_;  // the last one
  Duration pause_ = kRetryAfter;
  TimePoint retry_at_{};
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  Built finished_;         // guarded by mutex_
  Names finished_unread_;  // guarded by mutex_
  bool failed_ = false;    // guarded by mutex_
};

}  // namespace memslot
