#pragma once
// What people read for values of the wire (docs/formats/tasks.md).
//
// Threads: pure functions.
#include <string>

#include "shared/wire/messages_step.h"

namespace memslot {

inline const char* reason_name(wire::ActiveReason reason) {
  switch (reason) {
    case wire::ActiveReason::kOpening: return "opening";
    case wire::ActiveReason::kDirective: return "directive";
    case wire::ActiveReason::kMissedDeadline: return "missed_deadline";
    case wire::ActiveReason::kPinned: return "pinned";
    case wire::ActiveReason::kLoadFailed: return "load_failed";
    case wire::ActiveReason::kLate: return "late";
  }
  return "unknown";
}

// "base" or "NS/ID@VERSION".
inline std::string memory_name(const MemoryRef& ref) {
  return ref.id.empty() ? "base" : ref.text();
}

}  // namespace memslot
