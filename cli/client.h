#pragma once
// The CLI's connection to the controller: submits tasks, follows their events, asks for
// administration.
//
// Operation: one request at a time; a lost controller is an error after the timeout, and Ctrl-C
//            cancels the task that is under way.
// Threads:   one.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "shared/base/clock.h"
#include "shared/transport/channel.h"
#include "shared/wire/messages.h"

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
  explicit Client(const ClientConfig& config);
  Status send(std::uint64_t request, wire::Body body, SharedBytes part);
  // The next message for `request`; keeps the connection alive while it waits.
  Result<wire::Message> next(std::uint64_t request);
  Status keep_alive(TimePoint now);
  Status heed_interrupts(std::uint64_t request, int* heeded);
  bool is_from_another_controller(const wire::Message& message) const;
  Status greet();

  ClientConfig config_;
  SystemClock clock_;
  std::unique_ptr<Channel> channel_;
  std::uint64_t last_request_ = 0;
  std::uint64_t incarnation_ = 0;  // ours
  std::uint64_t controller_ = 0;   // the controller's
  Duration heartbeat_ = std::chrono::seconds(1);
  TimePoint heard_{}, beat_{};
};

}  // namespace memslot::cli
