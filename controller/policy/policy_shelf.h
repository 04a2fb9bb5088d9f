#pragma once
// The learned policy of a bank: one record "policy/default/learned", each version a checkpoint
// (docs/formats/policy.md) with where it came from. The head acts in sessions that begin; a session
// keeps the snapshot that it began with, found by its digest also after a restart.
//
// A version may also say that none acts (retire()); the ones before stay, for the sessions on them.
//
// A version is there whole or not at all, as any record's (bank_store.h): a controller killed in
// the middle of publishing one has the one before it.
//
// Errors:  those of make_snapshot() (policy_engine.h) and of DocumentBank.
// Threads: any.
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rl/policy_engine.h"
#include "storage/document_bank.h"

namespace memslot {

using SnapshotPtr = std::shared_ptr<const PolicySnapshot>;

struct PolicyRecord {
  std::string digest;        // "": none acts since
  std::string origin;        // "file", "online", "revert"; "unload" without a digest
  std::uint64_t number = 0;  // of the version, 1, 2, ...
  std::uint64_t update = 0;  // optimizer steps behind it
  std::int64_t created_unix_ms = 0;
};

class PolicyShelf {
 public:
  // How many versions are kept: sessions on older ones go on with the head after a restart.
  static constexpr std::size_t kKept = 64;

  // Both must outlive the shelf.
  PolicyShelf(DocumentBank& documents, const Clock& clock, PolicyEngine engine)
      : documents_(documents), clock_(clock), engine_(std::move(engine)) {}

  const PolicyEngine& engine() const { return engine_; }
  // What the bank holds becomes the head. A head that this program cannot run is logged and is
  // none.
  Status load(TimePoint deadline);
  SnapshotPtr head() const;           // null: none
  std::uint64_t head_number() const;  // of its version; 0: none
  bool retired() const;               // none acts because retire() said so

  // Makes the checkpoint the head. `instead_of`: only where that digest is the head now ("":
  // whatever is); kConflict otherwise. The head itself again is success and changes nothing. After
  // any error the head is what it was.
  Result<SnapshotPtr> publish(const std::string& bytes, std::string_view origin,
                              std::string_view instead_of, TimePoint deadline);
  // None acts from now on. Where none does, success that changes nothing; after an error the head
  // is what it was.
  Status retire(TimePoint deadline);
  // kNotFound: never published here, or too long ago.
  Result<SnapshotPtr> find(std::string_view digest, TimePoint deadline);
  Result<std::vector<PolicyRecord>> list(TimePoint deadline);  // oldest first; empty: none

 private:
  Result<SnapshotPtr> read(const Document& document, TimePoint deadline);
  void keep(const SnapshotPtr& snapshot, std::uint64_t number, bool as_head);
  void set_retired();

  DocumentBank& documents_;
  const Clock& clock_;
  const PolicyEngine engine_;
  std::mutex publishing_;  // one publish at a time
  mutable std::mutex mutex_;
  SnapshotPtr head_;               // guarded by mutex_
  std::uint64_t head_number_ = 0;  // guarded by mutex_
  bool retired_ = false;           // guarded by mutex_
  // Those that a session is on need not be read again.
  std::map<std::string, std::weak_ptr<const PolicySnapshot>, std::less<>> known_;  // mutex_
};

}  // namespace memslot
