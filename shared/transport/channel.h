#pragma once
// A bounded, message-oriented link between processes. One end of it.
//
// Operation:   a server end (ROUTER) talks to many peers, each named by the PeerId that its packets
//              carry; a client end (DEALER) talks to one server and leaves PeerId empty. Packets
//              between one pair of ends arrive in order, whole, at most once; nothing is promised
//              across a reconnect.
// Concurrency: receive() from one thread at a time; send(), wake() from any thread.
// Limits:      send() never blocks. Queues are bounded in bytes; over the bound it returns
//              kOverloaded and the packet is not sent. Incoming packets over the limits of
//              wire/limits.h are dropped and counted, before any field is read; they are bounded
//              in number, and so in bytes, once they are whole. What a peer has begun to send and
//              not ended may be unbounded: zmq_channel.h.
//              What a client end sends before it is connected waits in its queue.
// Lifecycle:   made open; close() (idempotent, also by the destructor) makes receive() return
//              kCancelled. Destroy it only when no call is under way.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/bytes.h"
#include "shared/base/clock.h"
#include "shared/base/error.h"

namespace memslot {

using PeerId = std::string;  // opaque; "" on a client end

struct Packet {
  PeerId peer;
  std::vector<SharedBytes> frames;  // envelope first, then its parts
  std::string user{};               // received only: the peer's CURVE public key (Z85), proven by
                                    // its handshake; "" on a link without CURVE
};

struct ChannelStats {
  std::uint64_t sent = 0;        // packets handed to the link
  std::uint64_t received = 0;    // packets handed to the caller
  std::uint64_t overloaded = 0;  // packets refused because a queue was full
  std::uint64_t dropped = 0;     // incoming packets over a limit
  // Of a connecting end, noticed by receive(): the other end does not take this one's key; it has
  // keys where this one has none, or the other way round, or is not the one that was expected.
  std::uint64_t refused = 0;
  std::uint64_t failed_handshakes = 0;
};

class Channel {
 public:
  virtual ~Channel() = default;
  // kOverloaded, kUnavailable (closed, or a server end that does not know the peer).
  virtual Status send(Packet packet) = 0;
  // kTimeout at the deadline, kCancelled after close(), kUnavailable ("woken") after wake().
  virtual Result<Packet> receive(TimePoint deadline) = 0;
  // Makes a receive() that waits, or the next one, return at once.
  virtual void wake() = 0;
  virtual void close() = 0;
  // What a peer would connect to, with the real port where 0 was asked for.
  virtual std::string endpoint() const = 0;
  virtual ChannelStats stats() const = 0;
};

}  // namespace memslot
