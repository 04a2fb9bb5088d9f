#include "shared/transport/zmq_options.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

namespace memslot {
namespace {

constexpr std::string_view kTcp = "tcp://";
constexpr std::string_view kIpc = "ipc://";
constexpr std::size_t kMaxIdentity = 200;  // ZeroMQ's bound is 255

Status check_endpoint(const std::string& endpoint) {
  const bool ipc = endpoint.starts_with(kIpc) && endpoint.size() > kIpc.size();
  const auto colon = endpoint.rfind(':');
  const bool tcp = endpoint.starts_with(kTcp) && colon > kTcp.size() && colon + 1 < endpoint.size();
  if (!ipc && !tcp) return invalid("endpoint", "tcp://HOST:PORT or ipc://PATH", endpoint);
  if (ipc && endpoint.size() - kIpc.size() >= sizeof(sockaddr_un::sun_path)) {
    return invalid("ipc path bytes", "less than " + std::to_string(sizeof(sockaddr_un::sun_path)),
                   endpoint.size() - kIpc.size());
  }
  if (!tcp) return ok();
  // ZeroMQ would take the lower 16 bits of a larger number.
  const std::string_view port = std::string_view(endpoint).substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), number);
  const bool known = failed == std::errc() && end == port.data() + port.size();
  return known || port == "*" ? ok() : invalid("endpoint's port", "0 to 65535", endpoint);
}

Status check_pair(const std::optional<KeyPair>& keys, const std::string& endpoint) {
  if (keys) {
    MEMSLOT_TRY(check_key("own public key", keys->public_key));
    return check_key("own secret key", keys->secret_key);
  }
  if (!require_curve(endpoint)) return ok();
  return Error{ErrorCode::kPermission, "endpoint " + endpoint +
                                           ": expected CURVE keys (it is neither loopback nor "
                                           "ipc; memslot keygen makes them), found none"};
}

}  // namespace

bool require_curve(std::string_view endpoint) {
  if (endpoint.starts_with(kIpc)) return false;
  if (!endpoint.starts_with(kTcp)) return true;
  endpoint.remove_prefix(kTcp.size());
  const std::string host(endpoint.substr(0, endpoint.rfind(':')));
  if (host == "localhost") return false;
  // Only a literal address counts: a name such as 127.example.org is somebody's server.
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) != 1 || (ntohl(address.s_addr) >> 24) != 127;
}

namespace zmq_internal {

Status check_options(const ServerOptions& options) {
  MEMSLOT_TRY(check_endpoint(options.endpoint));
  MEMSLOT_TRY(check_pair(options.keys, options.endpoint));
  if (options.keys && options.allowed_clients.empty()) {
    return invalid("allowed clients", "at least one public key", "none");
  }
  for (const std::string& key : options.allowed_clients) {
    MEMSLOT_TRY(check_key("allowed client", key));
  }
  return ok();
}

Status check_options(const ClientOptions& options) {
  MEMSLOT_TRY(check_endpoint(options.endpoint));
  MEMSLOT_TRY(check_pair(options.keys, options.endpoint));
  const auto& id = options.identity;
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c > 32 && c < 127; });
  if (id.size() > kMaxIdentity || !printable) {
    return invalid("identity", "at most 200 printable characters", id.size());
  }
  if (options.keys) return check_key("server key", options.server_key);
  if (!options.server_key.empty()) {
    return invalid("own keys", "a key pair, as a server key is given", "none");
  }
  return ok();
}

void set_common(zmq::socket_t& socket, int max_inbound, Duration linger) {
  namespace opt = zmq::sockopt;
  socket.set(opt::ipv6, 0);
  socket.set(opt::maxmsgsize, static_cast<std::int64_t>(wire::kMaxPartBytes));
  socket.set(opt::sndhwm, 0);  // bounded in bytes by the channel instead
  socket.set(opt::rcvhwm, max_inbound);
  socket.set(opt::linger, static_cast<int>(linger / std::chrono::milliseconds(1)));
  socket.set(opt::reconnect_ivl, 20);
  socket.set(opt::reconnect_ivl_max, 500);
  // A peer whose host vanished leaves a connection that never ends by itself.
  socket.set(opt::heartbeat_ivl, 5000);
  socket.set(opt::heartbeat_timeout, 20000);
}

void set_server(zmq::socket_t& socket, const ServerOptions& options) {
  namespace opt = zmq::sockopt;
  socket.set(opt::router_mandatory, 1);  // an unknown peer is an error, not silence
  socket.set(opt::router_handover, 1);
  if (!options.keys) return;
  socket.set(opt::curve_server, 1);
  socket.set(opt::curve_secretkey, options.keys->secret_key);
  socket.set(opt::zap_domain, "memslot");
}

void set_client(zmq::socket_t& socket, const ClientOptions& options, const std::string& identity) {
  namespace opt = zmq::sockopt;
  socket.set(opt::routing_id, identity);
  if (!options.keys) return;
  socket.set(opt::curve_serverkey, options.server_key);
  socket.set(opt::curve_publickey, options.keys->public_key);
  socket.set(opt::curve_secretkey, options.keys->secret_key);
}

Status check_ipc_free(const std::string& endpoint) {
  if (!endpoint.starts_with(kIpc)) return ok();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, endpoint.data() + kIpc.size(), endpoint.size() - kIpc.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return socket_error("bind", endpoint, errno);
  const bool taken =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  if (taken) return socket_error("bind", endpoint, EADDRINUSE);
  return ok();
}

Error socket_error(const std::string& what, const std::string& endpoint, int error) {
  const std::string context = what + " " + endpoint + ": ";
  if (error == EADDRINUSE) {
    return {ErrorCode::kBusy, context + "expected a free endpoint, found another process on it"};
  }
  const std::string text = context + zmq_strerror(error);
  if (error == EACCES || error == EPERM) return {ErrorCode::kPermission, text};
  if (error == EINVAL || error == ENODEV || error == EADDRNOTAVAIL || error == ENOENT ||
      error == ENOTDIR) {
    return {ErrorCode::kInvalidArgument, text};
  }
  return {ErrorCode::kIo, text};
}

}  // namespace zmq_internal

Result<ClientOptions> client_options(const std::string& endpoint, const std::string& key_file,
                                     const std::string& server_key) {
  ClientOptions options;
  options.endpoint = endpoint;
  if (!key_file.empty()) {
    MEMSLOT_TRY(auto pair, read_keys(key_file));
    options.keys = std::move(pair);
  }
  options.server_key = server_key;
  // '@' is a Z85 character, too: a key may begin with it.
  std::error_code none;
  const bool is_key = check_key("", server_key).has_value();
  const std::string file = server_key.starts_with('@') ? server_key.substr(1) : "";
  if (!file.empty() && (!is_key || std::filesystem::exists(file, none))) {
    MEMSLOT_TRY(const auto keys, read_public_keys(file));
    if (keys.size() != 1) return invalid("--server-key file", "one key", keys.size());
    options.server_key = keys.front();
  }
  return options;
}

}  // namespace memslot
