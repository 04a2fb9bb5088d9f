#pragma once
// The controller asked by its own HTTP server: a client of its link like any other, from inside the
// process (joined_channel.h), so that nothing is allowed here that is not allowed there.
//
// Operation:   ask() and run() wait for their answer; many at once. Where `gone` is asked to stop,
// a
//              task is cancelled and its end waited for, a little.
// Concurrency: every method from any thread.
// Errors:      those of the verb or task; kUnavailable where the controller is stopping.
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stop_token>
#include <string>

#include "shared/base/error.h"
#include "shared/transport/channel.h"

namespace memslot {

class LinkClient {
 public:
  explicit LinkClient(std::unique_ptr<Channel> channel);
  ~LinkClient();
  // What is under way ends with kCancelled, and so does what comes after it.
  void stop();

  struct Answer {
    std::string json;
    SharedBytes part;  // null: none
  };
  // A verb of docs/formats/tasks.md.
  Result<Answer> ask(const std::string& verb, const nlohmann::json& arguments,
                     SharedBytes part = nullptr);
  // A task: its last event as JSON text, the others to `on_event`, which returns false to have the
  // task cancelled.
  using OnEvent = std::function<bool(const std::string& event)>;
  Result<std::string> run(const std::string& kind, const std::string& arguments,
                          const OnEvent& on_event, std::stop_token gone);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
