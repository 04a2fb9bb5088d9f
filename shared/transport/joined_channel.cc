#include "shared/transport/joined_channel.h"

#include <utility>

#include "shared/base/error.h"

namespace memslot {
namespace {

const std::string kInner("\0inner-", 7);

}  // namespace

// What inner ends and the server end both use; an inner end may be the last to hold it.
struct JoinedChannel::Shared {
  std::mutex mutex;
  Channel* outer = nullptr;             // guarded by mutex; null once the server end has gone
  std::map<PeerId, std::string> users;  // guarded by mutex; of inner clients
  std::uint64_t last = 0;               // guarded by mutex
  std::atomic<int> waiting = 0;         // packets sent by inner clients and not yet received

  void wake() {
    const std::lock_guard lock(mutex);
    if (outer != nullptr) outer->wake();
  }
};

class JoinedChannel::InnerEnd final : public Channel {
 public:
  InnerEnd(std::unique_ptr<Channel> end, std::shared_ptr<Shared> shared, PeerId id)
      : end_(std::move(end)), shared_(std::move(shared)), id_(std::move(id)) {}
  ~InnerEnd() override {
    const std::lock_guard lock(shared_->mutex);
    shared_->users.erase(id_);
  }

  Status send(Packet packet) override {
    MEMSLOT_TRY(end_->send(std::move(packet)));
    ++shared_->waiting;
    shared_->wake();
    return ok();
  }
  Result<Packet> receive(TimePoint deadline) override { return end_->receive(deadline); }
  void wake() override { end_->wake(); }
  void close() override { end_->close(); }
  std::string endpoint() const override { return end_->endpoint(); }
  ChannelStats stats() const override { return end_->stats(); }

 private:
  std::unique_ptr<Channel> end_;
  std::shared_ptr<Shared> shared_;
  const PeerId id_;
};

JoinedChannel::JoinedChannel(std::unique_ptr<Channel> outer, LoopbackOptions inner)
    : outer_(std::move(outer)),
      network_(LoopbackNetwork::make(inner)),
      inner_(std::move(network_->bind()).value()),
      shared_(std::make_shared<Shared>()) {
  shared_->outer = outer_.get();
}

JoinedChannel::~JoinedChannel() {
  const std::lock_guard lock(shared_->mutex);
  shared_->outer = nullptr;
}

std::unique_ptr<Channel> JoinedChannel::connect(const std::string& user) {
  PeerId id;
  {
    const std::lock_guard lock(shared_->mutex);
    id = kInner + std::to_string(++shared_->last);
    shared_->users[id] = user;
  }
  return std::make_unique<InnerEnd>(network_->connect(id), shared_, id);
}

Status JoinedChannel::send(Packet packet) {
  Channel& to = packet.peer.starts_with(kInner) ? *inner_ : *outer_;
  return to.send(std::move(packet));
}

Result<Packet> JoinedChannel::receive(TimePoint deadline) {
  for (;;) {
    // Asking the inner link takes a lock: only where something is known to wait.
    if (shared_->waiting > 0) {
      auto packet = inner_->receive(TimePoint::min());
      --shared_->waiting;
      // Dropped for its size by the link, as an outer link does: nothing was there.
      if (packet) {
        const std::lock_guard lock(shared_->mutex);
        const auto user = shared_->users.find(packet.value().peer);
        if (user == shared_->users.end()) continue;  // it has gone
        packet.value().user = user->second;
        return packet;
      }
      if (packet.error().code == ErrorCode::kCancelled) return packet;
      continue;
    }
    auto packet = outer_->receive(deadline);
    const bool woken = !packet && packet.error().code == ErrorCode::kUnavailable;
    if (!woken || woken_.exchange(false)) return packet;
  }
}

void JoinedChannel::wake() {
  woken_ = true;
  outer_->wake();
}

void JoinedChannel::close() {
  inner_->close();
  outer_->close();
}

ChannelStats JoinedChannel::stats() const {
  ChannelStats out = outer_->stats();
  const ChannelStats inner = inner_->stats();
  out.sent += inner.sent;
  out.received += inner.received;
  out.overloaded += inner.overloaded;
  out.dropped += inner.dropped;
  return out;
}

}  // namespace memslot
