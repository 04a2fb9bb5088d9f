#include "controller/link/outbox.h"

#include "shared/base/log.h"
#include "shared/wire/codec.h"

namespace memslot {
namespace {

// Replies and last events: without one its peer waits for ever.
bool is_awaited(const wire::Message& message) {
  const auto* event = std::get_if<wire::TaskEvent>(&message.body);
  return event != nullptr ? event->final : message.request != 0 && wire::is_reply(message.body);
}

}  // namespace

Status Outbox::send(const PeerId& peer, const wire::Message& message) {
  auto frames = wire::encode(message);
  if (!frames) {
    ++refused_;
    log::error("a message of ours was refused: {}", frames.error().message);
    if (!is_awaited(message)) return Error{ErrorCode::kInternal, frames.error().message};
    frames = wire::encode(wire::in_place_of(message, frames.error()));
    MEMSLOT_CHECK(frames.has_value());
  }
  Packet packet;
  packet.peer = peer;
  packet.frames = std::move(frames).value();
  Status sent = channel_.send(std::move(packet));
  if (!sent) ++refused_;
  return sent;
}

Status Outbox::send(const PeerId& peer, std::uint64_t request, wire::Body body,
                    std::vector<SharedBytes> parts) {
  return send(peer, wire::Message{request, std::move(body), std::move(parts)});
}

void Outbox::error(const PeerId& peer, std::uint64_t request, const Error& error) {
  // A peer that does not take even this will notice by its own deadline.
  static_cast<void>(send(peer, request, wire::ErrorReply{error.code, error.message}));
}

Status Outbox::event(const PeerId& peer, std::uint64_t request, std::string json, bool final) {
  wire::TaskEvent event;
  event.event = std::move(json);
  event.final = final;
  return send(peer, request, std::move(event));
}

Status Outbox::failure(const PeerId& peer, std::uint64_t request, const Error& error) {
  wire::TaskEvent event;
  event.event = R"({"type":"failed"})";
  event.final = true;
  event.error = wire::ErrorReply{error.code, error.message};
  return send(peer, request, std::move(event));
}

}  // namespace memslot
