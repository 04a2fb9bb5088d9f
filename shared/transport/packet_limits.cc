#include "shared/transport/packet_limits.h"

#include "shared/wire/limits.h"

namespace memslot {

Status check_outgoing(const Packet& packet) {
  if (packet.frames.empty() || packet.frames.size() > wire::kMaxParts + 1) {
    return invalid("packet frames", "1 to " + std::to_string(wire::kMaxParts + 1),
                   packet.frames.size());
  }
  for (const SharedBytes& frame : packet.frames) {
    if (frame->size() > wire::kMaxPartBytes) {
      return invalid("frame bytes", "at most " + std::to_string(wire::kMaxPartBytes),
                     frame->size());
    }
  }
  return ok();
}

bool is_frame_allowed(std::size_t index, std::size_t bytes) {
  if (index > wire::kMaxParts) return false;
  return bytes <= (index == 0 ? wire::kMaxEnvelopeBytes : wire::kMaxPartBytes);
}

}  // namespace memslot
