#include "cli/client.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/transport/zmq_channel.h"
#include "shared/wire/codec.h"

namespace memslot::cli {
namespace {

// Counted by the signal handler, read by the loop that waits for the controller.
volatile std::sig_atomic_t g_interrupts = 0;
void on_interrupt(int) { g_interrupts = g_interrupts + 1; }

// Waiting in pieces keeps heartbeats going and notices Ctrl-C.
constexpr Duration kPoll = std::chrono::milliseconds(100);
// Until a request is sent again. A long task is silent for long: the pauses double.
constexpr Duration kFirstPause = std::chrono::milliseconds(250);
constexpr Duration kLongestPause = std::chrono::seconds(4);

Error restarted() {
  return {ErrorCode::kUnavailable, "controller: it was restarted while this request was under way"};
}

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

// The key of the --server-key option: itself, or what the file after '@' holds.
Result<std::string> server_key_of(const std::string& option) {
  if (option.empty() || option.front() != '@') return option;
  MEMSLOT_TRY(const auto keys, read_public_keys(option.substr(1)));
  if (keys.size() != 1) return invalid("--server-key file", "one key", keys.size());
  return keys.front();
}

Result<std::unique_ptr<Channel>> open_channel(const ClientConfig& config) {
  ClientOptions options;
  options.endpoint = config.endpoint;
  if (!config.key_file.empty()) {
    MEMSLOT_TRY(auto pair, read_keys(config.key_file));
    options.keys = std::move(pair);
  }
  MEMSLOT_TRY(options.server_key, server_key_of(config.server_key));
  return connect_channel(options);
}

}  // namespace

Client::Client(const ClientConfig& config) : config_(config), incarnation_(random_nonce()) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::connect(const ClientConfig& config) {
  std::unique_ptr<Client> client(new Client(config));
  MEMSLOT_TRY(client->channel_, open_channel(config));
  MEMSLOT_TRY(client->greet());
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  return client;
}

wire::Hello Client::hello() const {
  wire::Hello out;
  out.role = wire::PeerRole::kClient;
  out.incarnation = incarnation_;
  out.build = std::string(build_version());
  return out;
}

Status Client::greet() {
  heard_ = beat_ = clock_.now();
  MEMSLOT_TRY(begin(hello(), nullptr));
  MEMSLOT_TRY(const auto reply, next());
  const auto* welcome = std::get_if<wire::HelloReply>(&reply.body);
  if (welcome == nullptr)
    return Error{ErrorCode::kCorruption,
                 "controller: expected a HelloReply, found another message"};
  controller_ = welcome->incarnation;
  if (welcome->heartbeat_ms > 0) heartbeat_ = std::chrono::milliseconds(welcome->heartbeat_ms);
  return ok();
}

Status Client::send(std::uint64_t request, wire::Body body, SharedBytes part) {
  wire::Message message{request, std::move(body), {}};
  if (part) message.parts.push_back(std::move(part));
  MEMSLOT_TRY(auto frames, wire::encode(message));
  return channel_->send({PeerId(), std::move(frames)});
}

Status Client::begin(wire::Body body, SharedBytes part) {
  wire::Message message{++last_request_, std::move(body), {}};
  if (part) message.parts.push_back(std::move(part));
  MEMSLOT_TRY(auto frames, wire::encode(message));
  heard_ = clock_.now();
  request_ = {message.request, frames, heard_, kFirstPause};
  return channel_->send({PeerId(), std::move(frames)});
}

void Client::repeat(Sent& sent, TimePoint now) {
  sent.at = now;
  sent.pause = std::min<Duration>(2 * sent.pause, kLongestPause);
  // Refused: its queue is full, and what is in it comes first.
  static_cast<void>(channel_->send({PeerId(), sent.frames}));
}

void Client::repeat_if_due(TimePoint now) {
  for (Sent* sent : {&hello_, &request_}) {
    if (sent->request == 0 || now - sent->at < sent->pause) continue;
    if (sent == &request_ && hello_.request != 0) continue;  // after the welcome
    // To a controller that says nothing at all it would only pile up.
    if (heard_ > sent->at) repeat(*sent, now);
  }
}

Status Client::keep_alive(TimePoint now) {
  const ChannelStats link = channel_->stats();
  if (link.refused > 0) {
    return Error{ErrorCode::kPermission,
                 "controller: expected " + config_.endpoint +
                     " to admit this client's key, found it refused (it is not among the "
                     "controller's --clients)"};
  }
  if (now - heard_ > config_.timeout && link.failed_handshakes > 0) {
    return Error{ErrorCode::kPermission,
                 fmt::format("controller: expected a handshake with {}, found {} that failed (both "
                             "sides need keys, and --server-key must be the controller's)",
                             config_.endpoint, link.failed_handshakes)};
  }
  if (now - heard_ > config_.timeout) {
    const auto seconds = std::chrono::duration<double>(config_.timeout).count();
    return Error{ErrorCode::kUnavailable,
                 fmt::format("controller: expected an answer from {}, found none for {} s (is "
                             "memslot-controller running?)",
                             config_.endpoint, seconds)};
  }
  if (now - beat_ < heartbeat_) return ok();
  beat_ = now;
  return send(0, wire::Heartbeat{incarnation_}, nullptr);
}

// The first Ctrl-C asks for the task's end and waits for it, the second gives up.
Status Client::heed_interrupts(std::uint64_t request, int* heeded) {
  if (g_interrupts == *heeded) return ok();
  *heeded = g_interrupts;
  if (*heeded > 1) return Error{ErrorCode::kCancelled, "interrupted"};
  return send(0, wire::CancelTask{0, request}, nullptr);
}

Result<bool> Client::heed_link_error(const wire::ErrorReply& failure) {
  if (failure.code != ErrorCode::kUnavailable) return Error{failure.code, failure.message};
  // "Say Hello": it was restarted, or lost sight of us; its welcome tells which.
  if (controller_ == 0 || hello_.request != 0) return false;
  MEMSLOT_TRY(auto frames, wire::encode({++last_request_, hello(), {}}));
  hello_ = {last_request_, std::move(frames), TimePoint{}, kFirstPause / 2};
  repeat(hello_, clock_.now());
  return false;
}

Status Client::heed_welcome(const wire::Message& message) {
  hello_ = {};
  if (const auto* failure = std::get_if<wire::ErrorReply>(&message.body)) {
    return Error{failure->code, failure->message};
  }
  const auto* welcome = std::get_if<wire::HelloReply>(&message.body);
  if (welcome == nullptr || welcome->incarnation != controller_) return restarted();
  repeat(request_, clock_.now());
  return ok();
}

Result<bool> Client::heed(const wire::Message& message) {
  if (const auto* beat = std::get_if<wire::Heartbeat>(&message.body)) {
    if (controller_ != 0 && beat->incarnation != controller_) return restarted();
    return false;
  }
  const auto* failure = std::get_if<wire::ErrorReply>(&message.body);
  if (failure != nullptr && message.request == 0) return heed_link_error(*failure);
  if (hello_.request != 0 && message.request == hello_.request) {
    MEMSLOT_TRY(heed_welcome(message));
    return false;
  }
  if (message.request != request_.request) return false;  // of an earlier request
  if (failure != nullptr) return Error{failure->code, failure->message};
  request_.at = clock_.now();  // a sign of life
  request_.pause = kFirstPause;
  return true;
}

Result<wire::Message> Client::next() {
  int heeded = 0;
  for (;;) {
    const TimePoint now = clock_.now();
    MEMSLOT_TRY(keep_alive(now));
    MEMSLOT_TRY(heed_interrupts(request_.request, &heeded));
    repeat_if_due(now);
    auto packet = channel_->receive(now + kPoll);
    if (!packet) {
      const ErrorCode code = packet.error().code;
      if (code == ErrorCode::kTimeout || code == ErrorCode::kUnavailable) continue;
      return packet.error();
    }
    heard_ = clock_.now();
    MEMSLOT_TRY(auto message, wire::decode(packet.value().frames));
    MEMSLOT_TRY(const bool ours, heed(message));
    if (ours) return message;
  }
}

Result<std::shared_ptr<nlohmann::json>> Client::run(const std::string& kind,
                                                    const nlohmann::json& arguments,
                                                    const OnEvent& on_event) {
  MEMSLOT_TRY(auto text, arguments_text(arguments));
  MEMSLOT_TRY(begin(wire::SubmitTask{kind, std::move(text)}, nullptr));
  for (;;) {
    MEMSLOT_TRY(const auto message, next());
    const auto* event = std::get_if<wire::TaskEvent>(&message.body);
    if (event == nullptr)
      return Error{ErrorCode::kCorruption,
                   "controller: expected a TaskEvent, found another message"};
    if (event->error) return Error{event->error->code, event->error->message};
    MEMSLOT_TRY(auto json, parse_reply(event->event));
    if (event->final) return json;
    on_event(*json);
  }
}

Result<AdminResult> Client::ask(const std::string& verb, const nlohmann::json& arguments,
                                SharedBytes part) {
  MEMSLOT_TRY(auto text, arguments_text(arguments));
  MEMSLOT_TRY(begin(wire::AdminRequest{verb, std::move(text)}, std::move(part)));
  MEMSLOT_TRY(auto message, next());
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
