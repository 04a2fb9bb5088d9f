#pragma once
// A copy of the candidate index on disk, so that a controller that starts need not read, whiten and
// link the keys of all memories again (docs/formats/index.md). It is derived: where it is missing,
// of other statistics or damaged, the index is made from the bank.
//
// A folder: memslot-index.json, replaced as a whole, names the other files and their digests. Keys
// say what a memory is about: discard() takes all of it away, for when one was erased.
//
// Errors:  are logged; none of them stops anything.
// Limits:  a save needs room for the old copy and the new one.
// Threads: one at a time.
#include <string>

#include "controller/step/candidate_index.h"

namespace memslot {

class IndexFiles {
 public:
  // "" keeps nothing.
  explicit IndexFiles(std::string folder) : folder_(std::move(folder)) {}

  bool keeps() const { return !folder_.empty(); }
  // Replaces what was there. False where it could not: what was there stays.
  bool save(const CandidateIndex& index) const;
  // Into an index without memories: those whose statistics are the ones it was kept with, each to
  // be adopted. Where something is damaged the copy is discarded.
  struct Restored {
    std::size_t memories = 0;
    bool all = true;  // of what is there
  };
  Restored restore(CandidateIndex& index) const;
  void discard() const;

 private:
  Status write(const CandidateIndex& index) const;
  Status read_all(CandidateIndex& index, Restored& out) const;
  void tidy() const;

  const std::string folder_;
};

}  // namespace memslot
