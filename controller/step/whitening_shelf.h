#pragma once
// The whitenings that a bank's own keys were fitted with, kept in the bank: an index that is made
// again compares keys as the one before did, and needs no pass over them to fit it.
//
// One document "whitening/index/<model>-<layer>-..." for each space, the newest only. They are
// derived: what cannot be read is fitted again.
//
// Threads: load() from any thread; save() from one at a time.
#include <map>
#include <optional>
#include <string>

#include "controller/step/candidate_index.h"
#include "storage/document_bank.h"

namespace memslot {

class WhiteningShelf {
 public:
  // `documents` must outlive the shelf.
  explicit WhiteningShelf(DocumentBank& documents) : documents_(documents) {}

  // None: there is none, or it cannot be read (logged).
  std::optional<Whitening> load(const SpaceKey& space, TimePoint deadline);
  // Does nothing where the bank has it already. A failure is logged.
  void save(const SpaceKey& space, const Whitening& whitening, const std::string& digest,
            TimePoint deadline);

 private:
  Result<std::optional<Whitening>> read(const SpaceKey& space, TimePoint deadline);

  DocumentBank& documents_;
  std::map<SpaceKey, std::string> saved_;  // digests; of save()'s thread
};

}  // namespace memslot
