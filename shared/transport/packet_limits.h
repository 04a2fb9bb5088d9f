#pragma once
// The limits of wire/limits.h on a packet, the same for every channel.
//
// Threads: pure functions.
#include "shared/transport/channel.h"

namespace memslot {

// What send() refuses: kInvalidArgument for no frames, too many, or one that no peer would take.
Status check_outgoing(const Packet& packet);

// What receive() drops: frame `index` (0: the envelope) of `bytes`.
bool is_frame_allowed(std::size_t index, std::size_t bytes);

}  // namespace memslot
