#pragma once
// Inside of the ZeroMQ channel: the doorkeeper of a CURVE server (ZAP, rfc.zeromq.org/spec/27).
//
// Operation:   a thread answers the authentication requests of the context's sockets: a client
//              whose public key is on the allow-list is let in, and its packets carry the key as
//              user id.
// Lifecycle:   the constructor binds and starts; the thread ends when the context shuts down;
//              the destructor joins it. REQUIRES: the context was shut down before destruction.
#include <set>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

namespace memslot::zmq_internal {

class ZapServer {
 public:
  // Throws zmq::error_t if the context has such a handler already.
  ZapServer(zmq::context_t& context, const std::vector<std::string>& allowed_keys);
  ~ZapServer();
  ZapServer(const ZapServer&) = delete;
  ZapServer& operator=(const ZapServer&) = delete;

 private:
  void run();
  void answer_one();

  std::set<std::string> allowed_;
  std::set<std::string> reported_;  // refused keys that the log has told
  zmq::socket_t socket_;
  std::thread thread_;
};

}  // namespace memslot::zmq_internal
