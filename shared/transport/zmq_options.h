#pragma once
// Inside of the ZeroMQ channel: what is checked and set before a socket is opened.
//
// Threads: pure functions.
#include <zmq.hpp>

#include "shared/transport/zmq_channel.h"

namespace memslot::zmq_internal {

Status check_options(const ServerOptions& options);
Status check_options(const ClientOptions& options);

// Limits, reconnect, heartbeats and linger, the same for both ends.
void set_common(zmq::socket_t& socket, int max_inbound, Duration linger);
void set_server(zmq::socket_t& socket, const ServerOptions& options);
void set_client(zmq::socket_t& socket, const ClientOptions& options, const std::string& identity);

// kBusy if a process answers on the ipc path: ZeroMQ itself would silently take the path over.
Status check_ipc_free(const std::string& endpoint);

// kBusy, kPermission, kInvalidArgument or kIo for an errno of bind or connect.
Error socket_error(const std::string& what, const std::string& endpoint, int error);

}  // namespace memslot::zmq_internal
