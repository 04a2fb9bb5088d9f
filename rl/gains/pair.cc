#include "rl/gains/pair.h"

#include <csignal>
#include <future>
#include <nlohmann/json.hpp>

#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/transport/zmq_channel.h"

namespace memslot::gains_program {
namespace {

// Set by the signal handler, read by the threads that wait.
volatile std::sig_atomic_t g_interrupted = 0;
void on_interrupt(int) { g_interrupted = 1; }

constexpr std::chrono::milliseconds kPoll{50};
constexpr std::chrono::hours kForever{24 * 365};

Result<std::shared_ptr<nlohmann::json>> parsed(const std::string& text) {
  auto json = std::make_shared<nlohmann::json>(nlohmann::json::parse(text, nullptr, false));
  if (json->is_discarded()) return corrupt("controller's reply", "JSON", text.substr(0, 80));
  return json;
}

}  // namespace

Result<std::unique_ptr<Pair>> Pair::connect(const PairConfig& config) {
  std::unique_ptr<Pair> pair(new Pair(config));
  MEMSLOT_TRY(pair->open());
  return pair;
}

Pair::~Pair() {
  if (rpc_) rpc_->stop();
}

Status Pair::open() {
  MEMSLOT_TRY(const auto link,
              client_options(config_.endpoint, config_.key_file, config_.server_key));
  MEMSLOT_TRY(auto channel, connect_channel(link));
  RpcOptions options;
  options.hello.role = wire::PeerRole::kClient;
  options.hello.incarnation = random_nonce();
  options.hello.build = std::string(build_version());
  options.retry = std::chrono::seconds(2);  // tasks are silent for long
  RpcHandlers handlers;
  handlers.on_message = [this](wire::Message message) { take(message); };
  rpc_ = std::make_unique<RpcClient>(std::move(channel), options, handlers);
  rpc_->start();
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const Status there = rpc_->wait_connected(std::chrono::steady_clock::now() + config_.timeout);
  if (there) return ok();
  if (there.error().code != ErrorCode::kTimeout) return there.error();
  return Error{ErrorCode::kUnavailable, "controller: expected an answer from " + config_.endpoint +
                                            ", found none (is memslot-controller running?)"};
}

void Pair::take(const wire::Message& message) {
  const auto* event = std::get_if<wire::TaskEvent>(&message.body);
  if (event == nullptr) return;
  const auto json = parsed(event->event);
  const std::lock_guard lock(mutex_);
  const auto found = listeners_.find(message.request);
  if (json && found != listeners_.end() && found->second) found->second(*json.value());
}

Result<wire::Message> Pair::wait(std::uint64_t request, wire::Body body) {
  auto promise = std::make_shared<std::promise<Result<wire::Message>>>();
  auto reply = promise->get_future();
  rpc_->call_async({request, std::move(body), {}}, std::chrono::steady_clock::now() + kForever,
                   [promise](Result<wire::Message> r) { promise->set_value(std::move(r)); });
  auto seen = std::chrono::steady_clock::now();
  while (reply.wait_for(kPoll) != std::future_status::ready) {
    const auto now = std::chrono::steady_clock::now();
    if (rpc_->connected()) seen = now;
    if (g_interrupted != 0 || stopping_) {
      static_cast<void>(rpc_->post({0, wire::CancelTask{0, request}, {}}));
      return Error{ErrorCode::kCancelled, "cancelled"};
    }
    if (now - seen > config_.timeout) {
      return Error{ErrorCode::kUnavailable, "controller: expected connected, found lost"};
    }
  }
  return reply.get();
}

Result<std::shared_ptr<Pair::Json>> Pair::task(const std::string& kind, const Json& arguments,
                                               const OnEvent& on_event) {
  const std::uint64_t request = rpc_->new_request();
  {
    const std::lock_guard lock(mutex_);
    listeners_[request] = on_event;
  }
  auto reply = wait(request, wire::SubmitTask{kind, arguments.dump()});
  {
    const std::lock_guard lock(mutex_);
    listeners_.erase(request);
  }
  if (!reply) return reply.error();
  const auto* last = std::get_if<wire::TaskEvent>(&reply.value().body);
  if (last == nullptr) return corrupt("controller's reply", "a TaskEvent", "another message");
  return parsed(last->event);
}

Result<Pair::Answer> Pair::ask(const std::string& verb, const Json& arguments) {
  MEMSLOT_TRY(auto reply, wait(rpc_->new_request(), wire::AdminRequest{verb, arguments.dump()}));
  const auto* body = std::get_if<wire::AdminReply>(&reply.body);
  if (body == nullptr) return corrupt("controller's reply", "an AdminReply", "another message");
  Answer answer;
  MEMSLOT_TRY(answer.result, parsed(body->result));
  if (!reply.parts.empty()) answer.part = reply.parts.front();
  return answer;
}

}  // namespace memslot::gains_program
