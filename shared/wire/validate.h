#pragma once
// The rules of a message beyond its structure. Applied before encoding and after decoding, so that
// a peer's bad message is refused at the door and ours is refused before it leaves.
//
//   enums      a listed value
//   floats     finite
//   names      namespaces, memories, sources, where not empty: check_name() of memory/record.h
//   words      jobs, tokens, kinds, verbs: at most kMaxWordBytes
//   lists      at most the kMax... of limits.h
//   parts      as many as the body says (a payload for MemoryReply, ...), at most kMaxPartBytes
//
// Threads: pure functions.
#include "shared/wire/messages.h"

namespace memslot::wire {

// kInvalidArgument (over a limit), kCorruption (any other rule).
Status validate(const Message& message);

}  // namespace memslot::wire
