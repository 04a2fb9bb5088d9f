#pragma once
// A controller for tests of the client end: answers Hello and Heartbeat, and requests by script.
//
// Threads: its own thread answers; the accessors may be called from any thread.
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "shared/transport/channel.h"
#include "shared/wire/messages.h"

namespace memslot {

class FakeController {
 public:
  // What a request is answered with, in order; empty: silence.
  using Answer = std::function<std::vector<wire::Body>(const wire::Message&)>;

  FakeController(std::unique_ptr<Channel> channel, std::uint64_t incarnation, Answer answer);
  ~FakeController();
  FakeController(const FakeController&) = delete;
  FakeController& operator=(const FakeController&) = delete;

  // Forgets who said Hello.
  void forget();
  // Answers every Hello so from now on.
  void refuse_hello(wire::ErrorReply refusal);
  // To the last peer that spoke.
  void send(wire::Message message);
  // Request ids of all requests so far (not Hello, not Heartbeat).
  std::vector<std::uint64_t> requests() const;
  std::size_t hellos() const { return hellos_; }

 private:
  void run();
  void handle(const PeerId& peer, const wire::Message& message);
  void reply(const PeerId& peer, std::uint64_t request, wire::Body body);

  const std::unique_ptr<Channel> channel_;
  const std::uint64_t incarnation_;
  const Answer answer_;
  mutable std::mutex mutex_;
  std::set<PeerId> greeted_;
  PeerId last_peer_;
  std::optional<wire::ErrorReply> refusal_;
  std::vector<std::uint64_t> requests_;
  std::atomic<std::size_t> hellos_{0};
  std::thread thread_;
};

}  // namespace memslot
