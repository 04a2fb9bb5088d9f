#pragma once
// The contract of Channel inside one process: for tests and for a pair that shares a process.
//
// Operation:   a LoopbackNetwork stands for the endpoint. At most one server end is bound to it;
//              any number of client ends connect, before or after. A client that connects under an
//              identity in use takes its place over.
// Limits:      per direction and peer at most max_pending_bytes wait to be received.
// Ownership:   the ends hold the network; it may be dropped by its maker.
#include <memory>
#include <string>

#include "shared/transport/channel.h"

namespace memslot {

struct LoopbackOptions {
  std::size_t max_pending_bytes = std::size_t{64} << 20;
};

class LoopbackNetwork {
 public:
  static std::shared_ptr<LoopbackNetwork> make(LoopbackOptions options = {});
  virtual ~LoopbackNetwork() = default;

  // kBusy while another server end is open.
  virtual Result<std::unique_ptr<Channel>> bind() = 0;
  // "" takes a fresh identity.
  virtual std::unique_ptr<Channel> connect(const std::string& identity) = 0;

 protected:
  LoopbackNetwork() = default;
};

}  // namespace memslot
