#pragma once
// The CLI's connection to the controller: submits tasks, follows their events, asks for
// administration.
//
// Operation: one request at a time. It is sent again while no answer comes and the controller is
//            there (docs/formats/wire.md, "Retries"); a controller that does not know this client
//            is greeted again. One that was restarted, or is silent for the timeout, is an error;
//            so is whatever the controller says of the link itself. Ctrl-C cancels the task that
//            is under way.
// Threads:   one.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

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
  // What may be sent again: the same bytes, with pauses that double while nobody answers.
  struct Sent {
    std::uint64_t request = 0;  // 0: none
    std::vector<SharedBytes> frames;
    TimePoint at{};
    Duration pause{};
  };

  Status send(std::uint64_t request, wire::Body body, SharedBytes part);
  // A request of our own, the one that next() waits for.
  Status begin(wire::Body body, SharedBytes part);
  void repeat(Sent& sent, TimePoint now);
  void repeat_if_due(TimePoint now);
  // The next message for the request that began; keeps the connection alive while it waits.
  Result<wire::Message> next();
  // True if the message is for the request; what it says of the link is dealt with here.
  Result<bool> heed(const wire::Message& message);
  Result<bool> heed_link_error(const wire::ErrorReply& failure);
  Status heed_welcome(const wire::Message& message);
  wire::Hello hello() const;
  Status keep_alive(TimePoint now);
  Status heed_interrupts(std::uint64_t request, int* heeded);
  Status greet();

  ClientConfig config_;
  SystemClock clock_;
  std::unique_ptr<Channel> channel_;
  std::uint64_t last_request_ = 0;
  std::uint64_t incarnation_ = 0;  // ours
  std::uint64_t controller_ = 0;   // the controller's
  Duration heartbeat_ = std::chrono::seconds(1);
  TimePoint heard_{}, beat_{};
  Sent request_;
  Sent hello_;  // under way beside the request, after the controller lost sight of us
};

}  // namespace memslot::cli
