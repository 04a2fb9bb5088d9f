#include "controller/http/link_client.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "shared/base/clock.h"
#include "shared/base/rng.h"
#include "shared/base/version.h"
#include "shared/transport/rpc_client.h"

namespace memslot {
namespace {

constexpr auto kConnectTime = std::chrono::seconds(10);
constexpr auto kAskTime = std::chrono::hours(2);  // a backup's; the link ends what is lost
constexpr auto kPoll = std::chrono::milliseconds(100);
constexpr auto kCancelTime = std::chrono::seconds(30);

// What the link says of one request.
struct Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<wire::Message> events;            // guarded by mutex, as what follows
  std::optional<Result<wire::Message>> reply;  // after the events
};

Error unexpected() {
  return {ErrorCode::kInternal, "controller: answered with a message of another kind"};
}

}  // namespace

struct LinkClient::Impl {
  std::mutex mutex;
  std::map<std::uint64_t, std::shared_ptr<Inbox>> inboxes;  // guarded by mutex; of tasks
  std::unique_ptr<RpcClient> rpc;

  void event(wire::Message message) {
    std::shared_ptr<Inbox> inbox;
    {
      const std::lock_guard lock(mutex);
      const auto found = inboxes.find(message.request);
      if (found == inboxes.end()) return;
      inbox = found->second;
    }
    const std::lock_guard lock(inbox->mutex);
    inbox->events.push_back(std::move(message));
    inbox->changed.notify_one();
  }
  std::shared_ptr<Inbox> open(std::uint64_t request) {
    const std::lock_guard lock(mutex);
    return inboxes[request] = std::make_shared<Inbox>();
  }
  void close(std::uint64_t request) {
    const std::lock_guard lock(mutex);
    inboxes.erase(request);
  }
  Status connected() { return rpc->wait_connected(SystemClock().now() + kConnectTime); }
};

LinkClient::LinkClient(std::unique_ptr<Channel> channel) : impl_(std::make_unique<Impl>()) {
  RpcOptions options;
  options.hello.role = wire::PeerRole::kClient;
  options.hello.incarnation = random_nonce();
  options.hello.build = std::string(build_version());
  options.longest_retry = std::chrono::seconds(4);
  options.persists = false;
  RpcHandlers handlers;
  handlers.on_message = [impl = impl_.get()](wire::Message m) { impl->event(std::move(m)); };
  impl_->rpc = std::make_unique<RpcClient>(std::move(channel), options, handlers);
  impl_->rpc->start();
}

LinkClient::~LinkClient() { stop(); }
void LinkClient::stop() { impl_->rpc->stop(); }

Result<LinkClient::Answer> LinkClient::ask(const std::string& verb, const nlohmann::json& arguments,
                                           SharedBytes part) {
  MEMSLOT_TRY(impl_->connected());
  wire::Message message{0, wire::AdminRequest{verb, arguments.dump()}, {}};
  if (part != nullptr) message.parts.push_back(std::move(part));
  MEMSLOT_TRY(auto reply, impl_->rpc->call(std::move(message), SystemClock().now() + kAskTime));
  auto* const admin = std::get_if<wire::AdminReply>(&reply.body);
  if (admin == nullptr) return unexpected();
  return Answer{std::move(admin->result), reply.parts.empty() ? nullptr : reply.parts[0]};
}

Result<std::string> LinkClient::run(const std::string& kind, const std::string& arguments,
                                    const OnEvent& on_event, std::stop_token gone) {
  MEMSLOT_TRY(impl_->connected());
  wire::Message message{impl_->rpc->new_request(), wire::SubmitTask{kind, arguments}, {}};
  const std::uint64_t request = message.request;
  const auto inbox = impl_->open(request);
  impl_->rpc->call_async(std::move(message), TimePoint::max(), [inbox](Result<wire::Message> r) {
    const std::lock_guard lock(inbox->mutex);
    inbox->reply = std::move(r);
    inbox->changed.notify_one();
  });
  bool wanted = true;
  TimePoint give_up = TimePoint::max();
  std::optional<Result<wire::Message>> reply;
  while (!reply) {
    std::deque<wire::Message> events;
    {
      std::unique_lock lock(inbox->mutex);
      inbox->changed.wait_for(lock, kPoll, [&] { return !inbox->events.empty() || inbox->reply; });
      events.swap(inbox->events);
      if (events.empty()) reply = inbox->reply;
    }
    for (const wire::Message& one : events) {
      const auto* const event = std::get_if<wire::TaskEvent>(&one.body);
      if (wanted && event != nullptr && !on_event(event->event)) wanted = false;
    }
    if (gone.stop_requested()) wanted = false;
    if (!wanted && give_up == TimePoint::max()) {
      static_cast<void>(impl_->rpc->post({0, wire::CancelTask{0, request}, {}}));
      give_up = SystemClock().now() + kCancelTime;
    }
    if (SystemClock().now() > give_up) {
      impl_->close(request);
      return Error{ErrorCode::kCancelled, "the client has gone"};
    }
  }
  impl_->close(request);
  if (!*reply) return reply->error();
  auto* const last = std::get_if<wire::TaskEvent>(&reply->value().body);
  if (last == nullptr) return unexpected();
  return std::move(last->event);
}

}  // namespace memslot
