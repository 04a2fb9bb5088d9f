#pragma once
// The running pair as memslot-gains sees it: tasks and administration over the controller's socket.
//
// Operation:   task() waits for its last event; a controller that restarts gets the request again.
//              One that is lost for `timeout`, and Ctrl-C, end every call.
// Concurrency: every method from any thread; on_event runs on the link's thread: it must not block.
// Errors:      of the task or the request; kUnavailable, kCancelled.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "shared/base/clock.h"
#include "shared/transport/rpc_client.h"

namespace memslot::gains_program {

struct PairConfig {
  std::string endpoint = "tcp://127.0.0.1:7400";
  std::string ns = "default";
  std::string key_file;    // "" without CURVE
  std::string server_key;  // Z85, or @FILE
  Duration timeout = std::chrono::seconds(10);
};

class Pair {
 public:
  using Json = nlohmann::json;
  using OnEvent = std::function<void(const Json& event)>;
  struct Answer {
    std::shared_ptr<Json> result;
    SharedBytes part;  // null: none
  };

  static Result<std::unique_ptr<Pair>> connect(const PairConfig& config);
  ~Pair();

  // The last event.
  Result<std::shared_ptr<Json>> task(const std::string& kind, const Json& arguments,
                                     const OnEvent& on_event = {});
  Result<Answer> ask(const std::string& verb, const Json& arguments);

  const std::string& ns() const { return config_.ns; }
  // What waits ends, and what is asked from now on: a thread of several has failed.
  void stop() { stopping_ = true; }

 private:
  explicit Pair(const PairConfig& config) : config_(config) {}
  Status open();
  Result<wire::Message> wait(std::uint64_t request, wire::Body body);
  void take(const wire::Message& message);

  PairConfig config_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::uint64_t, OnEvent> listeners_;  // by request
  std::unique_ptr<RpcClient> rpc_;
};

}  // namespace memslot::gains_program
