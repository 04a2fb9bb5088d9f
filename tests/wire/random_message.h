#pragma once
// Random messages that obey every rule of the wire, for property tests and fuzz seeds.
//
// Threads: a generator belongs to one thread.
#include <random>

#include "shared/wire/messages.h"

namespace memslot::wire {

using Random = std::mt19937_64;

// A message with the body of index `type` (into Body's alternatives), every field random.
Message random_message(std::size_t type, Random& random);

}  // namespace memslot::wire
