#include "controller/link/learners.h"

#include <algorithm>
#include <set>

namespace memslot {
namespace {

bool has_slot(const Peer& peer, int layer) {
  const auto& slots = peer.hello.slots;
  if (layer < 0) return !slots.empty();
  return std::any_of(slots.begin(), slots.end(),
                     [&](const wire::SlotInfo& slot) { return slot.layer == layer; });
}

bool reads_text(const Peer& peer) { return peer.hello.learn_workers > 0; }

// How many generators pass each test and those before it.
struct Census {
  std::size_t connected = 0, see = 0, read = 0, able = 0;
  std::set<int> layers;  // of those that read

  Census(const PeerTable& peers, std::string_view ns, int layer) {
    for (const auto& [id, peer] : peers.all()) {
      if (!peer.is_generator()) continue;
      ++connected;
      if (!peer.access.sees(ns)) continue;
      ++see;
      if (!reads_text(peer)) continue;
      ++read;
      for (const auto& slot : peer.hello.slots) layers.insert(slot.layer);
      if (has_slot(peer, layer)) ++able;
    }
  }
  std::string layers_text() const {
    std::string out;
    for (const int layer : layers) out += (out.empty() ? "" : ", ") + std::to_string(layer);
    return out.empty() ? "none" : out;
  }
};

}  // namespace

bool can_learn(const Peer& peer, std::string_view ns, int layer) {
  return peer.is_generator() && peer.access.sees(ns) && reads_text(peer) && has_slot(peer, layer);
}

std::string missing_learner(const PeerTable& peers, std::string_view ns, int layer) {
  const Census found(peers, ns, layer);
  if (found.able > 0) return "";
  if (found.connected == 0) return "no generator is connected";
  const std::string none = "none of the " + std::to_string(found.connected) + " connected ";
  if (found.see == 0) return none + "generators may read namespace " + std::string(ns);
  if (found.read == 0) return none + "generators reads text (its model brings no tokenizer)";
  if (layer < 0) return none + "generators has a slot";
  return none + "generators has a slot at layer " + std::to_string(layer) + " (found " +
         found.layers_text() + ")";
}

Status check_learners(const PeerTable& peers, std::string_view ns, int layer) {
  const Census found(peers, ns, layer);
  if (found.able > 0 || found.see == 0) return ok();
  if (found.read == 0) {
    return Error{ErrorCode::kNotFound,
                 "tokenizer: expected a generator whose model brings one, found none among the " +
                     std::to_string(found.see) + " connected (learning needs text)"};
  }
  const std::string wanted = layer < 0 ? "" : " at layer " + std::to_string(layer);
  return Error{ErrorCode::kNotFound, "slot: expected a connected generator with one" + wanted +
                                         ", found " + found.layers_text()};
}

}  // namespace memslot
