#pragma once
// Message <-> frames. The envelope (frame 0) names protocol version, request id and body; the parts
// follow as frames of their own, bound to the envelope by length and XXH3-128.
//
// Threads: pure functions.
#include "shared/wire/messages.h"

namespace memslot::wire {

// kInvalidArgument over a limit of messages.h.
Result<std::vector<SharedBytes>> encode(const Message& message);

// FlatBuffers are verified before any field is read. kCorruption (malformed, digest, non-finite
// floats, unknown enum values), kMismatch (protocol version), kInvalidArgument (over a limit).
Result<Message> decode(const std::vector<SharedBytes>& frames);

}  // namespace memslot::wire
