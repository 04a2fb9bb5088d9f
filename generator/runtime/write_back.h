#pragma once
// A session's changed memory on its way to the bank, as a new version.
//
//   expected = token of the version that the state was made from; after an acknowledged write-back
//   that version's own token. A conflict keeps the state as a branch and is reported, not repeated.
//
// At most one write-back of a slot is under way; a wish for another one meanwhile is skipped (the next
// one carries the later state anyway).
//
// Threads: one session's thread; acknowledgements arrive on the outbox's.
#include <cstdint>
#include <memory>
#include <string>

#include "generator/runtime/outbox.h"
#include "generator/slot/slot.h"

namespace memslot {

class WriteBack {
 public:
  struct Outcome {
    bool stored = false;       // acknowledged
    bool conflict = false;     // ... as a branch
    bool pending = false;      // not acknowledged yet: the outbox goes on trying
    std::string memory;        // "NS/ID@VERSION" of the version stored
    std::string error;
  };

  // `origin`: the version that the session's state starts from.
  WriteBack(Outbox& outbox, wire::OpenSession session, MemoryVersion origin);

  // Sends the state; nothing is sent while the last one is under way (wait() for it first where this
  // one must go). kOverloaded, kCancelled.
  Status write(std::uint64_t step, std::uint64_t position, const MemoryPayload& state);
  // Waits for the acknowledgement of what is under way.
  Outcome wait(TimePoint deadline);

 private:
  struct Shared;
  Outbox& outbox_;
  const wire::OpenSession session_;
  std::shared_ptr<Shared> shared_;  // with the outbox's callback, which may outlive the session
};

}  // namespace memslot
