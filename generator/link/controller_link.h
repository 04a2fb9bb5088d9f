#pragma once
// The generator's end of the wire: an RpcClient that says who this generator is, and says so in the
// log when there is no controller.
//
// Operation:   call() waits for a reply; with a lost controller it waits for it to come back, up to
//              its deadline. call_if_connected() does not: what must never block on a lost
//              controller uses it. A TaskEvent that ends a task must not be lost: deliver() tries
//              until the link's queue takes it.
// Concurrency: call(), post(), deliver() from any thread; the handler runs on the link's thread and
//              must neither block nor call().
// Lifecycle:   start() once, stop() (idempotent): calls that wait end with kCancelled.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shared/base/clock.h"
#include "shared/transport/channel.h"
#include "shared/transport/rpc_client.h"
#include "shared/wire/messages.h"

namespace memslot {

class ControllerLink {
 public:
  // What is no reply: AssignTask, AssignLearn, CancelTask, CancelLearn.
  using Handler = std::function<void(wire::Message)>;

  ControllerLink(std::unique_ptr<Channel> channel, wire::Hello hello, Handler handler);
  ~ControllerLink();
  void start();
  void stop();

  // Sends and waits for the reply; an ErrorReply is returned as its Error. kUnavailable (no
  // controller), kTimeout, kOverloaded, kCancelled, kInvalidArgument (over a limit of the wire).
  Result<wire::Message> call(wire::Body body, std::vector<SharedBytes> parts, TimePoint deadline);
  Result<wire::Message> call_if_connected(wire::Body body, std::vector<SharedBytes> parts,
                                          TimePoint deadline);
  // A request whose answer nobody waits for; resent for a few seconds where none comes.
  void request(wire::Body body, std::vector<SharedBytes> parts = {});
  // One way. kUnavailable, kOverloaded.
  Status post(wire::Message message);
  // post(), again while the queue is full or the controller lost, for at most ten seconds. What is
  // over a limit of the wire is replaced by its error, so that whoever waits for it hears of it.
  void deliver(wire::Message message);

  bool connected() const { return rpc_.connected(); }
  Status wait_connected(TimePoint deadline) { return rpc_.wait_connected(deadline); }
  RpcStats stats() const { return rpc_.stats(); }
  ChannelStats channel_stats() const { return rpc_.link_stats(); }
  std::uint64_t incarnation() const { return incarnation_; }
  // The controller's incarnation, 0 before the first one; tells what came from one that is gone.
  std::uint64_t controller() const { return controller_; }

 private:
  RpcHandlers handlers(Handler handler);

  const std::uint64_t incarnation_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> controller_{0};
  RpcClient rpc_;
};

}  // namespace memslot
