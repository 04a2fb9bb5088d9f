#include "generator/link/controller_link.h"

#include <chrono>
#include <thread>  // sleep_for
#include <utility>

#include "shared/base/log.h"
#include "shared/wire/codec.h"

namespace memslot {
namespace {

constexpr int kDeliveries = 1000;
constexpr std::chrono::milliseconds kDeliveryPause{10};  // ten seconds in all

RpcOptions options_of(wire::Hello hello) {
  RpcOptions options;
  options.hello = std::move(hello);
  return options;
}

}  // namespace

ControllerLink::ControllerLink(std::unique_ptr<Channel> channel, wire::Hello hello, Handler handler)
    : incarnation_(hello.incarnation),
      rpc_(std::move(channel), options_of(std::move(hello)), handlers(std::move(handler))) {}

ControllerLink::~ControllerLink() { stop(); }

RpcHandlers ControllerLink::handlers(Handler handler) {
  RpcHandlers out;
  out.on_message = std::move(handler);
  out.on_connected = [this](const wire::HelloReply& welcome, bool restarted) {
    controller_ = welcome.incarnation;
    log::info("controller {} {} (heartbeat {} ms)", welcome.build,
              restarted ? "is back, restarted" : "is there", welcome.heartbeat_ms);
  };
  out.on_lost = [] { log::warn("controller lost: running sessions keep what is active"); };
  return out;
}

void ControllerLink::start() { rpc_.start(); }

void ControllerLink::stop() {
  stopping_ = true;
  rpc_.stop();
}

Result<wire::Message> ControllerLink::call(wire::Body body, std::vector<SharedBytes> parts,
                                           TimePoint deadline) {
  return rpc_.call({0, std::move(body), std::move(parts)}, deadline);
}

Result<wire::Message> ControllerLink::call_if_connected(wire::Body body,
                                                        std::vector<SharedBytes> parts,
                                                        TimePoint deadline) {
  if (!rpc_.connected()) {
    return Error{ErrorCode::kUnavailable, "controller: expected connected, found lost"};
  }
  return call(std::move(body), std::move(parts), deadline);
}

void ControllerLink::request(wire::Body body, std::vector<SharedBytes> parts) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  rpc_.call_async({0, std::move(body), std::move(parts)}, deadline,
                  [](const Result<wire::Message>& reply) {
                    if (!reply) log::debug("request without a waiter: {}", reply.error().message);
                  });
}

Status ControllerLink::post(wire::Message message) { return rpc_.post(std::move(message)); }

void ControllerLink::deliver(wire::Message message) {
  if (const auto frames = wire::encode(message); !frames) {
    log::error("a message of ours was refused: {}", frames.error().message);
    message = wire::in_place_of(message, frames.error());
  }
  for (int attempt = 0; attempt < kDeliveries && !stopping_; ++attempt) {
    const Status posted = rpc_.post(message);
    if (posted || (posted.error().code != ErrorCode::kOverloaded &&
                   posted.error().code != ErrorCode::kUnavailable)) {
      return;
    }
    std::this_thread::sleep_for(kDeliveryPause);
  }
}

}  // namespace memslot
