#pragma once
// Messages on their way out: encoded and handed to the channel, which bounds what waits per peer.
//
// Threads: any (as Channel::send()).
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "shared/transport/channel.h"
#include "shared/wire/messages.h"

namespace memslot {

class Outbox {
 public:
  explicit Outbox(Channel& channel) : channel_(channel) {}

  // kOverloaded, kUnavailable. What encode() refuses is logged; the peer is told in place of a
  // reply or of a final event, for anything else it is kInternal.
  Status send(const PeerId& peer, const wire::Message& message);
  Status send(const PeerId& peer, std::uint64_t request, wire::Body body,
              std::vector<SharedBytes> parts = {});
  void error(const PeerId& peer, std::uint64_t request, const Error& error);
  Status event(const PeerId& peer, std::uint64_t request, std::string json, bool final);
  // A task's last event where it failed.
  Status failure(const PeerId& peer, std::uint64_t request, const Error& error);

  std::uint64_t refused() const { return refused_; }  // sends that failed

 private:
  Channel& channel_;
  std::atomic<std::uint64_t> refused_ = 0;
};

}  // namespace memslot
