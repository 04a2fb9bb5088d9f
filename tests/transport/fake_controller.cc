#include "tests/transport/fake_controller.h"

#include "shared/wire/codec.h"

namespace memslot {

using wire::Message;

FakeController::FakeController(std::unique_ptr<Channel> channel, std::uint64_t incarnation,
                               Answer answer)
    : channel_(std::move(channel)), incarnation_(incarnation), answer_(std::move(answer)) {
  thread_ = std::thread([this] { run(); });
}

FakeController::~FakeController() {
  channel_->close();
  thread_.join();
}

void FakeController::forget() {
  const std::lock_guard lock(mutex_);
  greeted_.clear();
}

void FakeController::refuse_hello(wire::ErrorReply refusal) {
  const std::lock_guard lock(mutex_);
  refusal_ = std::move(refusal);
}

void FakeController::send(Message message) {
  PeerId peer;
  {
    const std::lock_guard lock(mutex_);
    peer = last_peer_;
  }
  static_cast<void>(channel_->send({peer, wire::encode(message).value()}));
}

std::vector<std::uint64_t> FakeController::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void FakeController::run() {
  for (;;) {
    auto packet = channel_->receive(std::chrono::steady_clock::now() + std::chrono::hours(1));
    if (!packet) return;
    const auto message = wire::decode(packet.value().frames);
    if (message) handle(packet.value().peer, message.value());
  }
}

void FakeController::reply(const PeerId& peer, std::uint64_t request, wire::Body body) {
  static_cast<void>(channel_->send({peer, wire::encode({request, std::move(body), {}}).value()}));
}

void FakeController::handle(const PeerId& peer, const Message& message) {
  std::unique_lock lock(mutex_);
  last_peer_ = peer;
  if (std::holds_alternative<wire::Hello>(message.body)) {
    ++hellos_;
    if (refusal_) return reply(peer, message.request, *refusal_);
    greeted_.insert(peer);
    return reply(peer, message.request, wire::HelloReply{incarnation_, "test", 50});
  }
  if (!greeted_.contains(peer)) {
    return reply(peer, 0, wire::ErrorReply{ErrorCode::kUnavailable, "say Hello"});
  }
  if (std::holds_alternative<wire::Heartbeat>(message.body)) {
    return reply(peer, 0, wire::Heartbeat{incarnation_});
  }
  requests_.push_back(message.request);
  lock.unlock();
  for (wire::Body& body : answer_(message)) reply(peer, message.request, std::move(body));
}

}  // namespace memslot
