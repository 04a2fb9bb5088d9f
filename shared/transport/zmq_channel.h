#pragma once
// The link between processes: ZeroMQ ROUTER (server end) and DEALER (client end), over tcp or ipc,
// with CURVE where the link leaves the host.
//
// Operation:   every end owns a ZeroMQ context with one I/O thread. A lock guards the socket, which
//              any thread may then use: a reply or a request goes straight to the socket, without
//              a hop to another thread. receive() waits outside the lock on the socket's descriptor
//              and an eventfd.
// Frames:      sent without a copy (the I/O thread holds the SharedBytes until they are written),
//              received with one.
// Limits:      per peer at most max_pending_bytes wait to be written, for a server end in all at
//              most max_total_bytes. Incoming: at most max_inbound whole packets wait per peer,
//              then the kernel's flow control holds the peer back; a frame over kMaxPartBytes ends
//              the connection, other excess (envelope, number of frames) drops the packet.
//              What is NOT bounded: the frames of a packet whose last one has not come. ZeroMQ
//              shows a packet when it is whole, counts it once (ZMQ_RCVHWM) and has no limit on
//              frames (ZMQ_MAXMSGSIZE is one frame's), so a peer past the handshake can make this
//              process hold all that it sends, until its connection ends. docs/operations.md says
//              how to bound the process.
// Reconnect:   a client end reconnects for ever; a server end that is started again on the same
//              endpoint is found again. A client that comes back under its old identity takes its
//              place over (ROUTER_HANDOVER).
// Security:    ipc sockets carry the file's mode (only the owner by the usual umask). On any
//              endpoint other than ipc and loopback, CURVE keys are required on both ends, and a
//              client's public key must be on the server's allow-list (ZAP). With keys given, a
//              loopback or ipc link uses them as well.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/transport/channel.h"
#include "shared/transport/keys.h"
#include "shared/wire/limits.h"

namespace memslot {

// One packet at its largest must fit, or it could never be sent.
inline constexpr std::size_t kDefaultPendingBytes =
    wire::kMaxEnvelopeBytes + (wire::kMaxParts + 1) * wire::kMaxPartBytes;

struct ServerOptions {
  std::string endpoint = "tcp://127.0.0.1:7400";  // tcp://ADDRESS:PORT (0: any) or ipc://PATH
  std::optional<KeyPair> keys;                    // with them: CURVE
  std::vector<std::string> allowed_clients;       // public keys (Z85); required with keys
  std::size_t max_pending_bytes = kDefaultPendingBytes;
  std::size_t max_total_bytes = 4 * kDefaultPendingBytes;
  int max_inbound = 8;  // whole packets per peer: at their largest 8 * 260 MiB
  Duration linger = std::chrono::milliseconds(200);  // close() waits so long for what is unsent
};

struct ClientOptions {
  std::string endpoint = "tcp://127.0.0.1:7400";
  std::string identity;  // 1 to 200 bytes, printable; "": random
  std::optional<KeyPair> keys;
  std::string server_key;  // Z85; required with keys
  std::size_t max_pending_bytes = kDefaultPendingBytes;
  int max_inbound = 64;
  Duration linger = std::chrono::milliseconds(200);
};

// kInvalidArgument (endpoint, keys), kPermission (CURVE required but no keys given), kBusy (another
// process has the endpoint), kIo.
Result<std::unique_ptr<Channel>> bind_channel(const ServerOptions& options);
// Does not wait for the server. kInvalidArgument, kPermission, kIo.
Result<std::unique_ptr<Channel>> connect_channel(const ClientOptions& options);
// From a program's options. `key_file`: "" without CURVE; `server_key`: Z85, or @FILE that holds
// one key (kInvalidArgument where it holds more). Keys may begin with @, too: one is a key where
// there is no such file. Also what reading the files answers.
Result<ClientOptions> client_options(const std::string& endpoint, const std::string& key_file,
                                     const std::string& server_key);

// True unless the endpoint is ipc or on the loopback interface (127.0.0.0/8, localhost).
bool require_curve(std::string_view endpoint);

}  // namespace memslot
