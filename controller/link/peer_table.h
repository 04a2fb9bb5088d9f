#pragma once
// Who is connected: every peer that said Hello, what it is, what it may see, when it was last
// heard.
//
// Threads: one at a time.
#include <map>
#include <string_view>
#include <vector>

#include "controller/link/access.h"
#include "shared/base/clock.h"
#include "shared/transport/channel.h"
#include "shared/wire/messages_link.h"

namespace memslot {

struct Peer {
  PeerId id;
  std::string user;  // the key it proved, "" without CURVE; another's packets are not this peer's
  wire::Hello hello;
  std::uint64_t hello_request = 0;  // a Hello with the same number is a retry
  Access access;
  TimePoint heard{};

  bool is_generator() const { return hello.role == wire::PeerRole::kGenerator; }
};

class PeerTable {
 public:
  Peer* find(const PeerId& id);
  Peer& put(Peer peer);
  void remove(const PeerId& id);
  // Another peer id of the same process: it came back over a new connection. Null if there is none.
  // The same key too: an incarnation is what a peer says of itself.
  Peer* find_process(const wire::Hello& hello, std::string_view user, const PeerId& except);
  std::vector<PeerId> silent_since(TimePoint then) const;
  // Time in which we did not listen is nobody's silence.
  void excuse(Duration gap, TimePoint now);
  const std::map<PeerId, Peer>& all() const { return peers_; }

 private:
  std::map<PeerId, Peer> peers_;
};

}  // namespace memslot
