#include "shared/transport/loopback_channel.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "shared/transport/packet_limits.h"  // check_outgoing, is_frame_allowed

namespace memslot {
namespace {

std::size_t bytes_in(const Packet& packet) {
  std::size_t bytes = 0;
  for (const SharedBytes& frame : packet.frames) bytes += frame->size() + 128;
  return bytes;
}

bool within_limits(const Packet& packet) {
  for (std::size_t i = 0; i < packet.frames.size(); ++i) {
    if (!is_frame_allowed(i, packet.frames[i]->size())) return false;
  }
  return true;
}

// What waits at one end. Guarded by the network's lock.
struct Inbox {
  std::deque<Packet> packets;
  std::map<PeerId, std::size_t> pending;  // bytes by sender
  std::condition_variable arrived;
  ChannelStats stats;
  bool woken = false;

  bool full(const PeerId& from, std::size_t bytes, std::size_t limit) const {
    const auto found = pending.find(from);
    return (found == pending.end() ? 0 : found->second) + bytes > limit;
  }
  void put(Packet packet) {
    pending[packet.peer] += bytes_in(packet);
    packets.push_back(std::move(packet));
    arrived.notify_all();
  }
  Packet take() {
    Packet packet = std::move(packets.front());
    packets.pop_front();
    const auto sender = pending.find(packet.peer);
    sender->second -= bytes_in(packet);
    if (sender->second == 0) pending.erase(sender);
    return packet;
  }
  void clear() {
    packets.clear();
    pending.clear();
  }
};

class Network;

// One end. A server end has no identity of its own and shares the network's inbox.
class End final : public Channel {
 public:
  End(std::shared_ptr<Network> network, std::shared_ptr<Inbox> inbox, PeerId self, bool server)
      : network_(std::move(network)),
        inbox_(std::move(inbox)),
        self_(std::move(self)),
        server_(server) {}
  ~End() override { close(); }

  Status send(Packet packet) override;
  Result<Packet> receive(TimePoint deadline) override;
  void wake() override;
  void close() override;
  std::string endpoint() const override { return "loopback"; }
  ChannelStats stats() const override;

 private:
  std::shared_ptr<Network> network_;
  std::shared_ptr<Inbox> inbox_;
  const PeerId self_;
  const bool server_;
  bool open_ = true;  // guarded by the network's lock
};

class Network final : public LoopbackNetwork, public std::enable_shared_from_this<Network> {
 public:
  explicit Network(LoopbackOptions options) : options_(options) {}

  Result<std::unique_ptr<Channel>> bind() override {
    const std::lock_guard lock(mutex_);
    if (bound_) {
      return Error{ErrorCode::kBusy,
                   "bind loopback: expected a free endpoint, found another on it"};
    }
    bound_ = true;
    // What clients sent while nobody was bound is still there, as in a client's own queue.
    to_server_->woken = false;
    to_server_->stats = {};
    return std::make_unique<End>(shared_from_this(), to_server_, PeerId(), /*server=*/true);
  }

  std::unique_ptr<Channel> connect(const std::string& identity) override {
    const std::lock_guard lock(mutex_);
    const PeerId id = identity.empty() ? "loopback-" + std::to_string(++last_id_) : identity;
    auto inbox = std::make_shared<Inbox>();
    clients_[id] = inbox;
    return std::make_unique<End>(shared_from_this(), std::move(inbox), id, /*server=*/false);
  }

  // Where a packet from this end goes; null if there is nobody. REQUIRES: mutex_ held.
  Inbox* inbox_for(bool from_server, const PeerId& peer) {
    if (!from_server) return to_server_.get();
    const auto found = clients_.find(peer);
    return found == clients_.end() ? nullptr : found->second.get();
  }

  // REQUIRES: mutex_ held.
  void leave(bool server, const PeerId& self, const std::shared_ptr<Inbox>& inbox) {
    if (server) {
      bound_ = false;
    } else if (const auto found = clients_.find(self);
               found != clients_.end() && found->second == inbox) {
      clients_.erase(found);
    }
    inbox->clear();
  }

  std::mutex mutex_;
  const LoopbackOptions options_;

 private:
  std::shared_ptr<Inbox> to_server_ = std::make_shared<Inbox>();
  std::map<PeerId, std::shared_ptr<Inbox>> clients_;
  bool bound_ = false;
  std::uint64_t last_id_ = 0;
};

Status End::send(Packet packet) {
  MEMSLOT_TRY(check_outgoing(packet));
  const std::lock_guard lock(network_->mutex_);
  if (!open_) return Error{ErrorCode::kUnavailable, "channel: expected open, found closed"};
  Inbox* to = network_->inbox_for(server_, packet.peer);
  if (to == nullptr) {
    return Error{ErrorCode::kUnavailable, "peer: expected a connected one, found none"};
  }
  if (!within_limits(packet)) {
    ++to->stats.dropped;  // as the other end of a real link would
    return ok();
  }
  packet.peer = self_;  // how the other end names the sender
  packet.user.clear();
  if (to->full(self_, bytes_in(packet), network_->options_.max_pending_bytes)) {
    ++inbox_->stats.overloaded;
    return Error{ErrorCode::kOverloaded, "send queue: expected room for " +
                                             std::to_string(bytes_in(packet)) +
                                             " bytes, found it full"};
  }
  ++inbox_->stats.sent;
  to->put(std::move(packet));
  return ok();
}

Result<Packet> End::receive(TimePoint deadline) {
  std::unique_lock lock(network_->mutex_);
  for (;;) {
    if (!open_) return Error{ErrorCode::kCancelled, "channel: closed"};
    if (inbox_->woken) {
      inbox_->woken = false;
      return Error{ErrorCode::kUnavailable, "woken"};
    }
    if (!inbox_->packets.empty()) {
      ++inbox_->stats.received;
      return inbox_->take();
    }
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) {
      return Error{ErrorCode::kTimeout, "receive: nothing before the deadline"};
    }
    inbox_->arrived.wait_until(lock, std::min<TimePoint>(deadline, now + std::chrono::hours(1)));
  }
}

void End::wake() {
  const std::lock_guard lock(network_->mutex_);
  inbox_->woken = true;
  inbox_->arrived.notify_all();
}

void End::close() {
  const std::lock_guard lock(network_->mutex_);
  if (!open_) return;
  open_ = false;
  network_->leave(server_, self_, inbox_);
  inbox_->arrived.notify_all();
}

ChannelStats End::stats() const {
  const std::lock_guard lock(network_->mutex_);
  return inbox_->stats;
}

}  // namespace

std::shared_ptr<LoopbackNetwork> LoopbackNetwork::make(LoopbackOptions options) {
  return std::make_shared<Network>(options);
}

}  // namespace memslot
