#pragma once
// A session's changed memory on its way to the bank, as a new version.
//
//   expected = token of the version that the state was made from; after an acknowledged write-back
//   that version's own token. A conflict keeps the state as a branch and is reported, not repeated.
//
// At most one write-back of a slot is under way. Of the states that come meanwhile the latest is
// kept, and goes off once the one before is answered; a state at the position of the last one is
// that one.
//
// Threads: one session's thread; acknowledgements arrive on the outbox's.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "generator/runtime/outbox.h"
#include "generator/slot/slot.h"

namespace memslot {

class WriteBack {
 public:
  struct Outcome {
    std::string from;       // "NS/ID@VERSION" of the version that the state was made from
    bool stored = false;    // acknowledged
    bool conflict = false;  // ... as a branch
    bool pending = false;   // not acknowledged yet: the outbox goes on trying
    std::string memory;     // "NS/ID@VERSION" of the version stored
    std::string error;
  };

  // `origin`: the version that the session's state starts from.
  WriteBack(Outbox& outbox, wire::OpenSession session, MemoryVersion origin);

  // Sends the state, now or after the one that is under way. kOverloaded, kCancelled; of a state
  // that is sent later, wait() tells.
  Status write(std::uint64_t step, std::uint64_t position, const MemoryPayload& state);
  // Waits for the acknowledgement of all that was written.
  Outcome wait(TimePoint deadline);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // with the outbox's callback, which may outlive the session
};

// Those of a session that has several stateful memories in turn: one for each version that a state
// starts from, so that every state goes back to its own memory.
//
// Threads: as WriteBack.
class WriteBacks {
 public:
  WriteBacks(Outbox& outbox, wire::OpenSession session)
      : outbox_(outbox), session_(std::move(session)) {}

  // As WriteBack::write(), for the state of the memory that was loaded as `origin`.
  Status write(const MemoryVersion& origin, std::uint64_t step, std::uint64_t position,
               const MemoryPayload& state);
  // Of every memory written, the latest last.
  std::vector<WriteBack::Outcome> wait(TimePoint deadline);

 private:
  Outbox& outbox_;
  const wire::OpenSession session_;
  std::vector<std::pair<std::string, WriteBack>> all_;  // by the origin's token; the latest last
};

}  // namespace memslot
