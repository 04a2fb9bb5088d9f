#pragma once
// A generator's changed memory becomes a new version in the bank.
//
// The payload is verified (size, digest, signature, finite numbers), then published by
// compare-and-set on the head that the state was made from; a lost one is kept as a branch and said
// so. The version keeps the keys and the source text of the one that it was made from: what it is
// about does not change with its state, and the source stays what the memory began from. A retry
// with the same token is success and changes nothing.
//
// Threads: one at a time.
#include "controller/session/session_table.h"
#include "controller/step/index_keeper.h"

namespace memslot {

class WriteBackHandler {
 public:
  // Everything must outlive the handler.
  WriteBackHandler(MemoryBank& bank, IndexKeeper& keeper, SessionTable& sessions)
      : bank_(bank), keeper_(keeper), sessions_(sessions) {}

  // kNotFound (session, or a namespace that it does not see, or no such head any more), kMismatch
  // (fits no slot of the session; payload not as described), kCorruption, kInvalidArgument,
  // kNoSpace, kIndeterminate (retry with the same token).
  Result<wire::WriteBackReply> handle(const PeerId& peer, const wire::WriteBack& request,
                                      std::span<const std::byte> payload, TimePoint deadline);

 private:
  MemoryBank& bank_;
  IndexKeeper& keeper_;
  SessionTable& sessions_;
};

}  // namespace memslot
