#include "shared/transport/rpc_client.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "shared/base/log.h"
#include "shared/wire/codec.h"

namespace memslot {
namespace {

using wire::Message;

constexpr int kMissedHeartbeats = 4;

TimePoint now() { return std::chrono::steady_clock::now(); }

// What a reply means to the caller: an error it carries is the call's error.
Result<Message> as_result(Message reply) {
  if (const auto* error = std::get_if<wire::ErrorReply>(&reply.body)) {
    return Error{error->code, error->message};
  }
  if (const auto* event = std::get_if<wire::TaskEvent>(&reply.body); event && event->error) {
    return Error{event->error->code, event->error->message};
  }
  return reply;
}

Error restarted_controller() {
  return {ErrorCode::kUnavailable, "controller: it was restarted while this request was under way"};
}

bool is_interim(const Message& m) {
  const auto* event = std::get_if<wire::TaskEvent>(&m.body);
  return event != nullptr && !event->final;
}

}  // namespace

class RpcClient::Link {
 public:
  Link(std::unique_ptr<Channel> channel, RpcOptions options, RpcHandlers handlers)
      : channel_(std::move(channel)),
        options_(std::move(options)),
        handlers_(std::move(handlers)) {}

  void start() {
    MEMSLOT_CHECK(!thread_.joinable());
    last_heard_ = now();
    thread_ = std::thread([this] { run(); });
  }
  void stop();
  Status wait_connected(TimePoint deadline);
  bool connected() const { return connected_; }
  TimePoint heard() const { return last_heard_; }
  ChannelStats link_stats() const { return channel_->stats(); }
  std::uint64_t new_request() { return ++last_request_; }
  void call_async(Message request, TimePoint deadline, Reply reply);
  // Takes a request back. The error that its caller gets; nothing if its reply is on the way.
  std::optional<Error> give_up(std::uint64_t request);
  Status post(Message message);
  RpcStats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  struct Pending {
    std::vector<SharedBytes> frames;
    TimePoint deadline;
    TimePoint resend;
    Duration pause;  // from one repetition to the next
    Reply reply;
    bool sent = false;  // on the present connection
  };
  using Replies = std::vector<std::pair<Reply, Error>>;

  void do_stop();
  void run();
  void handle(const Packet& packet);
  void handle(Message message);
  void handle_link_error(const wire::ErrorReply& error);
  void handle_reply(Message message);
  void handle_hello(Message message);
  void heard(const wire::Heartbeat& beat);
  void tick();
  void keep_link(TimePoint at);
  void say_hello(TimePoint at);
  void lose(const char* why);
  Replies expire(TimePoint at);
  void end_requests(const Error& error);
  void send_waiting();
  TimePoint next_wake();
  Error no_reply() const;

  const std::unique_ptr<Channel> channel_;
  const RpcOptions options_;
  const RpcHandlers handlers_;
  std::thread thread_;

  mutable std::mutex mutex_;  // guards the members down to the blank line
  std::map<std::uint64_t, Pending> pending_;
  std::condition_variable changed_;  // welcomed_, refusal_, stopped_
  bool welcomed_ = false;            // connected, and on_connected has run
  Error refusal_{ErrorCode::kTimeout, "controller: no answer to Hello"};
  RpcStats stats_;
  TimePoint planned_wake_{};  // when the link thread looks again at the latest
  bool stopped_ = false;

  std::once_flag stop_once_;
  std::atomic<bool> connected_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> last_request_{0};
  std::atomic<TimePoint> last_heard_{TimePoint()};  // set by the link thread

  // The link thread's own.
  std::uint64_t hello_request_ = 0;
  std::uint64_t incarnation_ = 0;  // the controller's; 0 before the first HelloReply
  Duration heartbeat_ = std::chrono::seconds(1);
  TimePoint next_beat_{};
  TimePoint next_hello_{};
};

// --- callers -------------------------------------------------------------------------------------

void RpcClient::Link::call_async(Message request, TimePoint deadline, Reply reply) {
  if (request.request == 0) request.request = new_request();
  auto frames = wire::encode(request);
  if (!frames) return reply(frames.error());
  const TimePoint resend = now() + options_.retry;
  bool wake = false, sent = false;
  {
    const std::lock_guard lock(mutex_);
    std::optional<Error> refused;
    if (stopped_) refused = Error{ErrorCode::kCancelled, "link: stopped"};
    if (!refused && pending_.size() >= options_.max_in_flight) {
      refused = Error{ErrorCode::kOverloaded, "requests in flight: expected at most " +
                                                  std::to_string(options_.max_in_flight) +
                                                  ", found as many"};
    }
    if (!refused) {
      sent = connected_;
      pending_[request.request] = {frames.value(), deadline,         resend,
                                   options_.retry, std::move(reply), sent};
      wake = std::min(deadline, resend) < planned_wake_;
    } else {
      frames = *refused;
    }
  }
  if (!frames) return reply(frames.error());
  // A refused send is no error yet: the link thread sends again until the deadline.
  if (sent) static_cast<void>(channel_->send({PeerId(), std::move(frames).value()}));
  if (wake) channel_->wake();
}

std::optional<Error> RpcClient::Link::give_up(std::uint64_t request) {
  const std::lock_guard lock(mutex_);
  if (pending_.erase(request) == 0) return std::nullopt;
  return no_reply();
}

Status RpcClient::Link::post(Message message) {
  if (!connected_)
    return Error{ErrorCode::kUnavailable, "controller: expected connected, found lost"};
  MEMSLOT_TRY(auto frames, wire::encode(message));
  return channel_->send({PeerId(), std::move(frames)});
}

Status RpcClient::Link::wait_connected(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return welcomed_ || stopped_; });
  if (stopped_) return Error{ErrorCode::kCancelled, "link: stopped"};
  if (welcomed_) return ok();
  return refusal_;
}

void RpcClient::Link::stop() {
  std::call_once(stop_once_, [this] { do_stop(); });
}

void RpcClient::Link::do_stop() {
  stopping_ = true;
  channel_->wake();
  if (thread_.joinable()) thread_.join();
  std::map<std::uint64_t, Pending> left;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    connected_ = false;
    left.swap(pending_);
    changed_.notify_all();
  }
  channel_->close();
  for (auto& [request, pending] : left) {
    pending.reply(Error{ErrorCode::kCancelled, "link: stopped"});
  }
}

// --- link thread ---------------------------------------------------------------------------------

void RpcClient::Link::run() {
  while (!stopping_) {
    tick();
    auto packet = channel_->receive(next_wake());
    if (packet) {
      handle(packet.value());
    } else if (packet.error().code == ErrorCode::kCancelled) {
      return;  // somebody closed the channel
    }
  }
}

void RpcClient::Link::handle(const Packet& packet) {
  auto message = wire::decode(packet.frames);
  if (message) return handle(std::move(message).value());
  log::warn("link: dropped a packet: {}", message.error().message);
  {
    const std::lock_guard lock(mutex_);
    ++stats_.malformed;
    if (!connected_) refusal_ = message.error();
  }
  if (!options_.persists) end_requests(message.error());
}

void RpcClient::Link::handle(Message message) {
  last_heard_ = now();
  if (const auto* beat = std::get_if<wire::Heartbeat>(&message.body)) return heard(*beat);
  if (message.request != 0 && message.request == hello_request_ && wire::is_reply(message.body)) {
    return handle_hello(std::move(message));
  }
  if (const auto* error = std::get_if<wire::ErrorReply>(&message.body);
      error != nullptr && message.request == 0) {
    return handle_link_error(*error);
  }
  if (wire::is_reply(message.body)) return handle_reply(std::move(message));
  if (handlers_.on_message) handlers_.on_message(std::move(message));
}

void RpcClient::Link::handle_link_error(const wire::ErrorReply& error) {
  if (error.code == ErrorCode::kUnavailable) return lose("the controller does not know this peer");
  log::warn("controller: {}", error.message);
  {
    const std::lock_guard lock(mutex_);
    if (!connected_) refusal_ = Error{error.code, error.message};
  }
  if (!options_.persists) end_requests({error.code, error.message});
}

void RpcClient::Link::handle_reply(Message message) {
  Reply reply;
  {
    const std::lock_guard lock(mutex_);
    const auto found = pending_.find(message.request);
    if (found == pending_.end()) {
      ++stats_.late;
      return;
    }
    if (is_interim(message)) {
      found->second.pause = options_.retry;  // a sign of life
      found->second.resend = now() + options_.retry;
    } else {
      reply = std::move(found->second.reply);
      pending_.erase(found);
    }
  }
  if (reply) return reply(as_result(std::move(message)));
  if (handlers_.on_message) handlers_.on_message(std::move(message));
}

void RpcClient::Link::heard(const wire::Heartbeat& beat) {
  if (!connected_ || beat.incarnation == incarnation_) return;
  if (!options_.persists) end_requests(restarted_controller());
  lose("the controller was restarted");
}

void RpcClient::Link::handle_hello(Message message) {
  if (connected_) return;  // a second answer to a repeated Hello
  const auto* welcome = std::get_if<wire::HelloReply>(&message.body);
  if (welcome == nullptr) {
    const auto result = as_result(std::move(message));
    Error refusal =
        result ? Error{ErrorCode::kCorruption, "controller: expected HelloReply"} : result.error();
    {
      const std::lock_guard lock(mutex_);
      // Once: Hello is tried again for ever.
      if (refusal.message != refusal_.message) log::warn("link: refused: {}", refusal.message);
      refusal_ = refusal;
    }
    if (!options_.persists) end_requests(refusal);
    return;
  }
  const bool restarted = incarnation_ != 0 && incarnation_ != welcome->incarnation;
  if (restarted && !options_.persists) end_requests(restarted_controller());
  incarnation_ = welcome->incarnation;
  heartbeat_ = std::chrono::milliseconds(welcome->heartbeat_ms);
  next_beat_ = now() + heartbeat_;
  {
    const std::lock_guard lock(mutex_);
    connected_ = true;
  }
  if (handlers_.on_connected) handlers_.on_connected(*welcome, restarted);
  {
    const std::lock_guard lock(mutex_);
    welcomed_ = true;
    changed_.notify_all();
  }
  send_waiting();
}

void RpcClient::Link::lose(const char* why) {
  if (!connected_) return;
  log::warn("link: controller lost: {}", why);
  {
    const std::lock_guard lock(mutex_);
    connected_ = welcomed_ = false;
    for (auto& [request, pending] : pending_) pending.sent = false;
    ++stats_.lost;
    refusal_ = Error{ErrorCode::kUnavailable, std::string("controller lost: ") + why};
  }
  hello_request_ = 0;
  next_hello_ = now();
  if (handlers_.on_lost) handlers_.on_lost();
}

// --- time ----------------------------------------------------------------------------------------

void RpcClient::Link::tick() {
  const TimePoint at = now();
  keep_link(at);
  for (auto& [reply, error] : expire(at)) reply(std::move(error));
}

void RpcClient::Link::keep_link(TimePoint at) {
  if (connected_ && at - last_heard_.load() > kMissedHeartbeats * heartbeat_)
    lose("four heartbeats missed");
  if (!connected_) {
    if (at >= next_hello_) say_hello(at);
    return;
  }
  if (at < next_beat_) return;
  next_beat_ = at + heartbeat_;
  static_cast<void>(post({0, wire::Heartbeat{options_.hello.incarnation}, {}}));
}

void RpcClient::Link::say_hello(TimePoint at) {
  next_hello_ = at + options_.hello_retry;
  // One id for all repetitions: a retry repeats the request id.
  if (hello_request_ == 0) hello_request_ = new_request();
  auto frames = wire::encode({hello_request_, options_.hello, {}});
  if (frames) {
    static_cast<void>(channel_->send({PeerId(), std::move(frames).value()}));
    return;
  }
  const std::lock_guard lock(mutex_);
  refusal_ = frames.error();
}

Error RpcClient::Link::no_reply() const {
  if (connected_) return {ErrorCode::kTimeout, "controller: no reply before the deadline"};
  return {ErrorCode::kUnavailable,
          "controller: expected connected, found lost (" + refusal_.message + ")"};
}

// Takes out what is past its deadline, and sends again what waited too long.
RpcClient::Link::Replies RpcClient::Link::expire(TimePoint at) {
  Replies expired;
  const std::lock_guard lock(mutex_);
  for (auto it = pending_.begin(); it != pending_.end();) {
    Pending& pending = it->second;
    if (at >= pending.deadline) {
      expired.emplace_back(std::move(pending.reply), no_reply());
      it = pending_.erase(it);
      continue;
    }
    if (at >= pending.resend) {
      if (2 * pending.pause <= options_.longest_retry) pending.pause *= 2;
      pending.resend = at + pending.pause;
      if (connected_) {
        ++stats_.resent;
        static_cast<void>(channel_->send({PeerId(), pending.frames}));
      }
    }
    ++it;
  }
  return expired;
}

void RpcClient::Link::end_requests(const Error& error) {
  std::map<std::uint64_t, Pending> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(pending_);
  }
  for (auto& [request, pending] : ended) pending.reply(error);
}

// What came while there was no connection, or was sent on an earlier one.
void RpcClient::Link::send_waiting() {
  const std::lock_guard lock(mutex_);
  for (auto& [request, pending] : pending_) {
    if (pending.sent) continue;
    pending.sent = true;
    pending.resend = now() + options_.retry;
    static_cast<void>(channel_->send({PeerId(), pending.frames}));
  }
}

TimePoint RpcClient::Link::next_wake() {
  TimePoint wake = connected_ ? next_beat_ : next_hello_;
  // At least twice per retry interval: so a new request need not wake this thread for its resend.
  wake = std::min(wake, now() + options_.retry / 2);
  const std::lock_guard lock(mutex_);
  for (const auto& [request, pending] : pending_) {
    wake = std::min({wake, pending.deadline, pending.resend});
  }
  planned_wake_ = wake;
  return wake;
}

// --- RpcClient -----------------------------------------------------------------------------------

RpcClient::RpcClient(std::unique_ptr<Channel> channel, RpcOptions options, RpcHandlers handlers)
    : link_(std::make_unique<Link>(std::move(channel), std::move(options), std::move(handlers))) {}
RpcClient::~RpcClient() { stop(); }

void RpcClient::start() { link_->start(); }
void RpcClient::stop() { link_->stop(); }
Status RpcClient::wait_connected(TimePoint deadline) { return link_->wait_connected(deadline); }
bool RpcClient::connected() const { return link_->connected(); }
TimePoint RpcClient::heard() const { return link_->heard(); }
ChannelStats RpcClient::link_stats() const { return link_->link_stats(); }
std::uint64_t RpcClient::new_request() { return link_->new_request(); }
Status RpcClient::post(Message message) { return link_->post(std::move(message)); }
RpcStats RpcClient::stats() const { return link_->stats(); }

void RpcClient::call_async(Message request, TimePoint deadline, Reply reply) {
  link_->call_async(std::move(request), deadline, std::move(reply));
}

Result<Message> RpcClient::call(Message request, TimePoint deadline) {
  // Shared: the link thread may still be in the callback when the caller has its result.
  struct Waiter {
    std::mutex mutex;
    std::condition_variable arrived;
    std::optional<Result<Message>> result;
  };
  if (request.request == 0) request.request = link_->new_request();
  const std::uint64_t id = request.request;
  const auto waiter = std::make_shared<Waiter>();
  // This thread keeps the deadline itself, so that the link thread need not be woken for it.
  link_->call_async(std::move(request), TimePoint::max(), [waiter](Result<Message> result) {
    const std::lock_guard lock(waiter->mutex);
    waiter->result = std::move(result);
    waiter->arrived.notify_one();
  });
  const auto arrived = [&] { return waiter->result.has_value(); };
  std::unique_lock lock(waiter->mutex);
  if (!waiter->arrived.wait_until(lock, deadline, arrived)) {
    lock.unlock();
    if (const auto error = link_->give_up(id)) return *error;
    lock.lock();
    waiter->arrived.wait(lock, arrived);
  }
  return std::move(*waiter->result);
}

}  // namespace memslot
