#pragma once
// Requests and replies over a client end of a Channel: what generator and CLI speak to the
// controller with (docs/formats/wire.md, "Exchanges").
//
// Operation:   a link thread receives, resends, keeps the heartbeat and notices a lost controller.
//              Requests are sent by the calling thread itself; a reply reaches a waiting call()
//              with one thread hop. A request without a reply is sent again after `retry` of
//              silence, with the same request id and body, until its deadline. A late reply is
//              dropped and counted. While the controller is lost, requests wait (bounded) and Hello
//              is repeated; after its HelloReply, on_connected runs and what waits is sent again.
// Lost:        nothing heard for four heartbeats, another incarnation in a Heartbeat, or an
//              ErrorReply with request id 0 and kUnavailable ("say Hello").
// Concurrency: every method from any thread. Callbacks run on the link thread (after stop(): on the
//              thread that stops), one at a time, and must not block nor call call(), start() or
//              stop(); call_async() and post() are fine.
// Limits:      max_in_flight requests; over it kOverloaded at once.
// Lifecycle:   start() once; stop() (idempotent, also by the destructor) ends the link thread,
//              closes the channel and gives kCancelled to what is in flight. Destroy it only when
//              no call is under way.
#include <functional>
#include <memory>

#include "shared/transport/channel.h"
#include "shared/wire/messages.h"

namespace memslot {

struct RpcOptions {
  wire::Hello hello;                                // said at every (re)connection
  Duration retry = std::chrono::milliseconds(250);  // resend a request after so much silence
  // From one repetition to the next the pause doubles up to this; at most `retry`: it stays.
  Duration longest_retry = Duration::zero();
  Duration hello_retry = std::chrono::milliseconds(100);
  std::size_t max_in_flight = 1024;
  // False, for a client whose user waits: requests under way end where the controller was restarted
  // (kUnavailable: it may have done what was asked), says that something is wrong with the link, or
  // sends what does not decode. True: all that is outlasted, until each deadline.
  bool persists = true;
};

struct RpcHandlers {
  // Requests and notices of the controller (AssignLearn, CancelTask, ...), and the TaskEvents of a
  // SubmitTask in flight but for its last, which is the reply.
  std::function<void(wire::Message)> on_message;
  // Connected, for the first time or again. `restarted`: it is another incarnation than before.
  std::function<void(const wire::HelloReply&, bool restarted)> on_connected;
  std::function<void()> on_lost;
};

struct RpcStats {
  std::uint64_t resent = 0;     // requests sent again after silence
  std::uint64_t late = 0;       // replies that nobody waited for
  std::uint64_t malformed = 0;  // incoming packets that did not decode
  std::uint64_t lost = 0;       // times that the controller was lost
};

class RpcClient {
 public:
  using Reply = std::function<void(Result<wire::Message>)>;

  RpcClient(std::unique_ptr<Channel> channel, RpcOptions options, RpcHandlers handlers);
  ~RpcClient();
  RpcClient(const RpcClient&) = delete;
  RpcClient& operator=(const RpcClient&) = delete;

  void start();
  void stop();

  // Waits for the first HelloReply, or the next one after a loss, and on_connected. kTimeout with
  // the controller's last word if it refused the Hello (its code then), kCancelled.
  Status wait_connected(TimePoint deadline);
  bool connected() const;
  TimePoint heard() const;  // when the controller last sent anything; the start, if never
  ChannelStats link_stats() const;

  // A request id of its own, for a caller that must know it beforehand (CancelTask).
  std::uint64_t new_request();

  // request.request 0: one is taken. The reply, or: the error of an ErrorReply or of a final
  // TaskEvent; kTimeout (connected, no reply), kUnavailable (not connected at the deadline);
  // kOverloaded, kCancelled; what encode() refuses.
  Result<wire::Message> call(wire::Message request, TimePoint deadline);
  // The same without waiting: `reply` runs exactly once, with call()'s result.
  void call_async(wire::Message request, TimePoint deadline, Reply reply);
  // One-way; the request id is left as it is. kUnavailable while not connected, kOverloaded.
  Status post(wire::Message message);

  RpcStats stats() const;

 private:
  class Link;
  std::unique_ptr<Link> link_;
};

}  // namespace memslot
