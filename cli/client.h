#pragma once
// The CLI's connection to the controller: submits tasks, follows their events, asks for
// administration.
//
// Operation: one request at a time, over an RpcClient that does not persist: a controller that was
//            restarted is an error, and so is whatever it says of the link itself; here, one that
//            is silent for the timeout too. Ctrl-C cancels the task that is under way, a second one
//            gives up waiting for its end.
// Threads:   one (the link has its own).
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "shared/base/clock.h"
#include "shared/transport/rpc_client.h"

namespace memslot::cli {

struct ClientConfig {
  std::string endpoint = "tcp://127.0.0.1:7400";
  std::string key_file;                         // own key pair (memslot keygen); "" without CURVE
  std::string server_key;                       // the controller's public key, Z85 (or @FILE)
  Duration timeout = std::chrono::seconds(10);  // to hear from the controller at all
};

struct AdminResult {
  std::shared_ptr<nlohmann::json> result;
  SharedBytes part;  // a file's bytes (bank.export); null otherwise
};

class Client {
 public:
  using OnEvent = std::function<void(const nlohmann::json& event)>;

  // Greets the controller. kUnavailable if it does not answer.
  static Result<std::unique_ptr<Client>> connect(const ClientConfig& config);
  ~Client();

  // Runs a task to its end and returns its last event; the others go to `on_event`.
  Result<std::shared_ptr<nlohmann::json>> run(const std::string& kind,
                                              const nlohmann::json& arguments,
                                              const OnEvent& on_event);
  Result<AdminResult> ask(const std::string& verb, const nlohmann::json& arguments,
                          SharedBytes part);

 private:
  // What the link says of the request that waits; the link's thread fills it.
  struct Inbox;

  explicit Client(const ClientConfig& config);
  Status greet();
  void begin(wire::Body body, SharedBytes part);
  // The next message for the request that began; `last`: it is its reply.
  Result<wire::Message> next(bool* last);
  Status check_link(TimePoint since) const;  // that the controller is there, and takes us
  Status heed_interrupts();

  const ClientConfig config_;
  SystemClock clock_;
  std::shared_ptr<Inbox> inbox_;
  std::unique_ptr<RpcClient> rpc_;
  std::uint64_t request_ = 0;  // the newest
  TimePoint begun_{};          // when it began
  int heeded_ = 0;             // interrupts of it
};

}  // namespace memslot::cli
