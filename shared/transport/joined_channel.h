#pragma once
// One server end over two links: an outer one, and clients inside this process. What a process
// offers over HTTP asks its own server through it, under the same rules as any other client.
//
// Operation:   peers of the outer link keep their ids; those inside have ids that no outer peer can
//              have (libzmq gives or takes none that begin with a zero byte and are longer than its
//              own five). Packets of an inner client carry the `user` it was connected under, which
//              no CURVE key can be equal to where it is not 40 characters of Z85.
// Concurrency: that of Channel; connect() from any thread.
// Limits:      those of the outer link, and per direction and inner client max_pending_bytes.
// Lifecycle:   inner ends may outlive it: they are then closed ones.
#include <atomic>
#include <map>
#include <mutex>

#include "shared/transport/loopback_channel.h"

namespace memslot {

class JoinedChannel final : public Channel {
 public:
  explicit JoinedChannel(std::unique_ptr<Channel> outer, LoopbackOptions inner = {});
  ~JoinedChannel() override;

  // A client end of this process. `user`: what its packets say it is.
  std::unique_ptr<Channel> connect(const std::string& user);

  Status send(Packet packet) override;
  Result<Packet> receive(TimePoint deadline) override;
  void wake() override;
  void close() override;
  std::string endpoint() const override { return outer_->endpoint(); }
  ChannelStats stats() const override;

 private:
  class InnerEnd;
  struct Shared;

  std::unique_ptr<Channel> outer_;
  std::shared_ptr<LoopbackNetwork> network_;
  std::unique_ptr<Channel> inner_;
  std::shared_ptr<Shared> shared_;
  std::atomic<bool> woken_ = false;
};

}  // namespace memslot
