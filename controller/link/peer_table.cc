#include "controller/link/peer_table.h"

#include <algorithm>

namespace memslot {

Peer* PeerTable::find(const PeerId& id) {
  const auto found = peers_.find(id);
  return found == peers_.end() ? nullptr : &found->second;
}

Peer& PeerTable::put(Peer peer) {
  const PeerId id = peer.id;
  return peers_[id] = std::move(peer);
}

void PeerTable::remove(const PeerId& id) { peers_.erase(id); }

Peer* PeerTable::find_process(const wire::Hello& hello, std::string_view user,
                              const PeerId& except) {
  for (auto& [id, peer] : peers_) {
    const bool same = peer.user == user && peer.hello.incarnation == hello.incarnation &&
                      peer.hello.role == hello.role;
    if (same && id != except) return &peer;
  }
  return nullptr;
}

void PeerTable::excuse(Duration gap, TimePoint now) {
  for (auto& [id, peer] : peers_) peer.heard = std::min(peer.heard + gap, now);
}

std::vector<PeerId> PeerTable::silent_since(TimePoint then) const {
  std::vector<PeerId> out;
  for (const auto& [id, peer] : peers_) {
    if (peer.heard < then) out.push_back(id);
  }
  return out;
}

}  // namespace memslot
