#pragma once
// Message <-> frames. The envelope (frame 0) names protocol version, request id and body; the parts
// follow as frames of their own, bound to the envelope by length and XXH3-128.
//
// Both directions apply the rules of validate.h, so what encode() accepts, decode() accepts.
//
// Threads: pure functions.
#include <string_view>

#include "shared/wire/messages.h"

namespace memslot::wire {

// kInvalidArgument: over a limit of limits.h, or against a rule of validate.h.
Result<std::vector<SharedBytes>> encode(const Message& message);

// FlatBuffers are verified before any field is read. kCorruption (malformed, digest, non-finite
// floats, unknown enum values, names), kMismatch (protocol version), kInvalidArgument (over a
// limit).
Result<Message> decode(const std::vector<SharedBytes>& frames);

// "Hello", "Observation", ...: for logs and errors.
std::string_view body_name(const Body& body);

// True for the bodies that answer a request and repeat its id; the others begin an exchange of
// their sender or are one-way. (TaskEvent repeats its task's id and may come several times.)
bool is_reply(const Body& body);

// What to send where encode() refused a reply or a final event of ours, so that its peer does not
// wait for ever: an ErrorReply, or a final TaskEvent, with `refusal` ("result: ...").
Message in_place_of(const Message& reply, const Error& refusal);

}  // namespace memslot::wire
