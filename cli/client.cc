#include "cli/client.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/transport/zmq_channel.h"

namespace memslot::cli {
namespace {

// Counted by the signal handler, read by the thread that waits for the controller.
std::atomic<int> g_interrupts = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch no lock");
void on_interrupt(int) { ++g_interrupts; }

// Waiting in pieces notices Ctrl-C, and a controller that is silent.
constexpr Duration kPoll = std::chrono::milliseconds(100);
// A long task is silent for long, and a repetition may bring a whole file.
constexpr Duration kLongestRetry = std::chrono::seconds(4);

Result<std::shared_ptr<nlohmann::json>> parse_reply(const std::string& text) {
  auto json = std::make_shared<nlohmann::json>(nlohmann::json::parse(text, nullptr, false));
  if (json->is_discarded()) {
    return Error{ErrorCode::kCorruption,
                 "controller's reply: expected JSON, found " + text.substr(0, 80)};
  }
  return json;
}

// JSON is UTF-8; a file or an argument that is not must not reach the wire.
Result<std::string> arguments_text(const nlohmann::json& arguments) {
  try {
    return arguments.dump();
  } catch (const nlohmann::json::type_error& e) {
    return invalid("text", "UTF-8", e.what());
  }
}

}  // namespace

struct Client::Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<wire::Message> events;            // guarded by mutex, as what follows
  std::optional<Result<wire::Message>> reply;  // after the events

  void put_event(wire::Message event) {
    const std::lock_guard lock(mutex);
    events.push_back(std::move(event));
    changed.notify_one();
  }
  void put_reply(Result<wire::Message> result) {
    const std::lock_guard lock(mutex);
    reply = std::move(result);
    changed.notify_one();
  }
};

Client::Client(const ClientConfig& config) : config_(config) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::connect(const ClientConfig& config) {
  MEMSLOT_TRY(const auto link, client_options(config.endpoint, config.key_file, config.server_key));
  MEMSLOT_TRY(auto channel, connect_channel(link));
  std::unique_ptr<Client> client(new Client(config));
  RpcOptions options;
  options.hello.role = wire::PeerRole::kClient;
  options.hello.incarnation = random_nonce();
  options.hello.build = std::string(build_version());
  options.longest_retry = kLongestRetry;
  options.persists = false;
  client->inbox_ = std::make_shared<Inbox>();
  RpcHandlers handlers;
  handlers.on_message = [inbox = client->inbox_](wire::Message m) {
    inbox->put_event(std::move(m));
  };
  client->rpc_ = std::make_unique<RpcClient>(std::move(channel), options, handlers);
  MEMSLOT_TRY(client->greet());
  g_interrupts = 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  return client;
}

Status Client::greet() {
  const TimePoint begun = clock_.now();
  rpc_->start();
  for (;;) {
    const auto connected = rpc_->wait_connected(clock_.now() + kPoll);
    if (connected) return ok();
    const ErrorCode code = connected.error().code;
    // Anything else is what the controller answered to Hello.
    if (code != ErrorCode::kTimeout && code != ErrorCode::kUnavailable) return connected.error();
    MEMSLOT_TRY(check_link(begun));
  }
}

Status Client::check_link(TimePoint since) const {
  const ChannelStats link = rpc_->link_stats();
  if (link.refused > 0) {
    return Error{ErrorCode::kPermission,
                 "controller: expected " + config_.endpoint +
                     " to admit this client's key, found it refused (it is not among the "
                     "controller's --clients)"};
  }
  if (clock_.now() - std::max(since, rpc_->heard()) <= config_.timeout) return ok();
  if (link.failed_handshakes > 0) {
    return Error{ErrorCode::kPermission,
                 fmt::format("controller: expected a handshake with {}, found {} that failed (both "
                             "sides need keys, and --server-key must be the controller's)",
                             config_.endpoint, link.failed_handshakes)};
  }
  const auto seconds = std::chrono::duration<double>(config_.timeout).count();
  return Error{ErrorCode::kUnavailable,
               fmt::format("controller: expected an answer from {}, found none for {} s (is "
                           "memslot-controller running?)",
                           config_.endpoint, seconds)};
}

// The first Ctrl-C asks for the task's end and waits for it, the second gives up.
Status Client::heed_interrupts() {
  const int interrupts = g_interrupts;
  if (interrupts == heeded_) return ok();
  if (interrupts > 1) return Error{ErrorCode::kCancelled, "interrupted"};
  // While the controller is lost there is nobody to ask; asked again until it is there.
  if (rpc_->post({0, wire::CancelTask{0, request_}, {}})) heeded_ = interrupts;
  return ok();
}

void Client::begin(wire::Body body, SharedBytes part) {
  wire::Message message{rpc_->new_request(), std::move(body), {}};
  if (part) message.parts.push_back(std::move(part));
  request_ = message.request;
  begun_ = clock_.now();
  heeded_ = 0;
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->events.clear();  // of an earlier request
    inbox_->reply.reset();
  }
  // No deadline: it ends when the controller does, or falls silent.
  rpc_->call_async(std::move(message), TimePoint::max(),
                   [inbox = inbox_](Result<wire::Message> r) { inbox->put_reply(std::move(r)); });
}

Result<wire::Message> Client::next(bool* last) {
  for (;;) {
    MEMSLOT_TRY(check_link(begun_));
    MEMSLOT_TRY(heed_interrupts());
    std::unique_lock lock(inbox_->mutex);
    inbox_->changed.wait_for(lock, kPoll,
                             [&] { return !inbox_->events.empty() || inbox_->reply.has_value(); });
    if (!inbox_->events.empty()) {
      wire::Message event = std::move(inbox_->events.front());
      inbox_->events.pop_front();
      if (event.request != request_) continue;
      *last = false;
      return event;
    }
    if (!inbox_->reply) continue;
    *last = true;
    return std::move(*inbox_->reply);
  }
}

Result<std::shared_ptr<nlohmann::json>> Client::run(const std::string& kind,
                                                    const nlohmann::json& arguments,
                                                    const OnEvent& on_event) {
  MEMSLOT_TRY(auto text, arguments_text(arguments));
  begin(wire::SubmitTask{kind, std::move(text)}, nullptr);
  for (;;) {
    bool last = false;
    MEMSLOT_TRY(const auto message, next(&last));
    const auto* event = std::get_if<wire::TaskEvent>(&message.body);
    if (event == nullptr)
      return Error{ErrorCode::kCorruption,
                   "controller: expected a TaskEvent, found another message"};
    MEMSLOT_TRY(auto json, parse_reply(event->event));
    if (last) return json;
    on_event(*json);
  }
}

Result<AdminResult> Client::ask(const std::string& verb, const nlohmann::json& arguments,
                                SharedBytes part) {
  MEMSLOT_TRY(auto text, arguments_text(arguments));
  begin(wire::AdminRequest{verb, std::move(text)}, std::move(part));
  bool last = false;
  MEMSLOT_TRY(auto message, next(&last));
  const auto* reply = std::get_if<wire::AdminReply>(&message.body);
  if (reply == nullptr)
    return Error{ErrorCode::kCorruption,
                 "controller: expected an AdminReply, found another message"};
  AdminResult result;
  MEMSLOT_TRY(result.result, parse_reply(reply->result));
  if (!message.parts.empty()) result.part = message.parts.front();
  return result;
}

}  // namespace memslot::cli
