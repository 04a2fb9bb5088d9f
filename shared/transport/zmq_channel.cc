#include "shared/transport/zmq_channel.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <zmq.hpp>

#include "shared/base/log.h"
#include "shared/base/rng.h"                 // random_nonce
#include "shared/transport/packet_limits.h"  // check_outgoing, is_frame_allowed
#include "shared/transport/zmq_options.h"    // check_options, set_*
#include "shared/transport/zmq_zap.h"        // ZapServer

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
// ZeroMQ's hand-over between threads is not instrumented: say that it orders memory.
#define MEMSLOT_HAND_OVER(p) __tsan_release(p)
#define MEMSLOT_TAKE_OVER(p) __tsan_acquire(p)
#else
#define MEMSLOT_HAND_OVER(p) static_cast<void>(p)
#define MEMSLOT_TAKE_OVER(p) static_cast<void>(p)
#endif

namespace memslot {
namespace {

// What a queued frame costs beyond its bytes: ZeroMQ's and our bookkeeping. Counting it bounds the
// number of tiny frames too.
constexpr std::size_t kFrameOverhead = 128;
// Budgets of peers that are gone are dropped when there are more than this.
constexpr std::size_t kMaxIdleBudgets = 256;

// Bytes handed to ZeroMQ and not yet written. Shared with the frames in its queues, which outlive
// the channel's own map entry.
struct Budget {
  std::atomic<std::size_t> pending{0};
};

// A frame in ZeroMQ's hands; freed by its I/O thread.
struct Loan {
  SharedBytes bytes;
  std::shared_ptr<Budget> peer;
  std::shared_ptr<Budget> total;
  std::size_t cost;
};

void end_loan(void*, void* hint) {
  MEMSLOT_TAKE_OVER(hint);
  std::unique_ptr<Loan> loan(static_cast<Loan*>(hint));
  loan->peer->pending -= loan->cost;
  loan->total->pending -= loan->cost;
}

std::size_t cost_of(const Packet& packet) {
  std::size_t cost = 0;
  for (const SharedBytes& frame : packet.frames) cost += frame->size() + kFrameOverhead;
  return cost;
}

class Message {  // owns a zmq_msg_t
 public:
  Message() { zmq_msg_init(&msg_); }
  ~Message() { zmq_msg_close(&msg_); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  zmq_msg_t* get() { return &msg_; }
  std::size_t size() const { return zmq_msg_size(&msg_); }
  bool more() const { return zmq_msg_more(&msg_) != 0; }
  const char* data() { return static_cast<const char*>(zmq_msg_data(&msg_)); }
  // A property of the connection it came by, or "".
  std::string property(const char* name) const {
    const char* value = zmq_msg_gets(&msg_, name);
    return value == nullptr ? std::string() : std::string(value);
  }

 private:
  zmq_msg_t msg_;
};

struct Limits {
  std::size_t peer_bytes = 0;
  std::size_t total_bytes = 0;
};

class ZmqChannel final : public Channel {
 public:
  ZmqChannel(bool server, Limits limits)
      : server_(server),
        limits_(limits),
        socket_(context_, server ? zmq::socket_type::router : zmq::socket_type::dealer),
        wake_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    MEMSLOT_CHECK(wake_fd_ >= 0);
  }
  ~ZmqChannel() override {
    close();
    ::close(wake_fd_);
  }
  ZmqChannel(const ZmqChannel&) = delete;
  ZmqChannel& operator=(const ZmqChannel&) = delete;

  // Throw zmq::error_t; before the channel is shared.
  void bind(const ServerOptions& options);
  void connect(const ClientOptions& options);

  Status send(Packet packet) override;
  Result<Packet> receive(TimePoint deadline) override;
  void wake() override {
    woken_ = true;
    poke();
  }
  void close() override {
    std::call_once(close_once_, [this] { do_close(); });
  }
  std::string endpoint() const override { return endpoint_; }
  ChannelStats stats() const override {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  enum class Taken { kNothing, kDropped, kPacket };

  Taken take(Packet& out);
  void watch_handshakes();
  void note_handshakes();
  bool take_frame(Message& message, std::size_t index, Packet& out);
  void wait(std::unique_lock<std::mutex>& lock, TimePoint deadline);
  Status send_route(const PeerId& peer);
  Status send_frame(const SharedBytes& frame, const std::shared_ptr<Budget>& budget, bool more);
  std::shared_ptr<Budget> budget_of(const PeerId& peer);
  void poke();
  void do_close();

  const bool server_;
  const Limits limits_;
  zmq::context_t context_;

  mutable std::mutex mutex_;  // guards the members down to the blank line
  zmq::socket_t socket_;
  zmq::socket_t events_;  // how handshakes ended; of a connecting end
  std::map<PeerId, std::shared_ptr<Budget>> budgets_;
  ChannelStats stats_;
  bool waiting_ = false;  // a receive() is in poll(), without the lock
  bool closed_ = false;
  std::condition_variable idle_;  // waiting_ became false

  std::shared_ptr<Budget> total_ = std::make_shared<Budget>();
  std::atomic<bool> woken_{false};
  const int wake_fd_;
  std::once_flag close_once_;
  std::string endpoint_;
  std::unique_ptr<zmq_internal::ZapServer> zap_;
};

// --- opening and closing -------------------------------------------------------------------------

void ZmqChannel::bind(const ServerOptions& options) {
  zmq_internal::set_common(socket_, options.max_inbound, options.linger);
  zmq_internal::set_server(socket_, options);
  // The doorkeeper first: nobody may come before it.
  if (options.keys) {
    zap_ = std::make_unique<zmq_internal::ZapServer>(context_, options.allowed_clients);
  }
  socket_.bind(options.endpoint);
  endpoint_ = socket_.get(zmq::sockopt::last_endpoint);
}

void ZmqChannel::connect(const ClientOptions& options) {
  zmq_internal::set_common(socket_, options.max_inbound, options.linger);
  std::string identity = options.identity;
  if (identity.empty()) identity.append("m").append(std::to_string(random_nonce()));
  zmq_internal::set_client(socket_, options, identity);
  watch_handshakes();
  socket_.connect(options.endpoint);
  endpoint_ = options.endpoint;
}

void ZmqChannel::do_close() {
  {
    std::unique_lock lock(mutex_);
    closed_ = true;
    poke();
    idle_.wait(lock, [this] { return !waiting_; });
    events_.close();
    socket_.close();
  }
  context_.shutdown();  // ends the doorkeeper
  zap_.reset();
  context_.close();  // waits for what is unsent, at most the linger time
}

void ZmqChannel::poke() {
  const std::uint64_t one = 1;
  // Fails only if the counter is full: then it is readable already.
  [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

// --- sending -------------------------------------------------------------------------------------

std::shared_ptr<Budget> ZmqChannel::budget_of(const PeerId& peer) {
  if (auto found = budgets_.find(peer); found != budgets_.end()) return found->second;
  if (budgets_.size() >= kMaxIdleBudgets) {
    std::erase_if(budgets_, [](const auto& entry) { return entry.second->pending == 0; });
  }
  return budgets_[peer] = std::make_shared<Budget>();
}

Status ZmqChannel::send_route(const PeerId& peer) {
  const int flags = ZMQ_DONTWAIT | ZMQ_SNDMORE;
  if (zmq_send(socket_.handle(), peer.data(), peer.size(), flags) >= 0) return ok();
  return Error{ErrorCode::kUnavailable, errno == EHOSTUNREACH
                                            ? "peer: expected a connected one, found none"
                                            : std::string("peer: ") + zmq_strerror(errno)};
}

Status ZmqChannel::send_frame(const SharedBytes& frame, const std::shared_ptr<Budget>& budget,
                              bool more) {
  const std::size_t cost = frame->size() + kFrameOverhead;
  auto loan = std::make_unique<Loan>(Loan{frame, budget, total_, cost});
  budget->pending += cost;
  total_->pending += cost;
  MEMSLOT_HAND_OVER(loan.get());
  zmq_msg_t msg;
  // ZeroMQ does not write to what it sends; its interface only says so for C.
  void* data = const_cast<std::byte*>(frame->data());
  MEMSLOT_CHECK(zmq_msg_init_data(&msg, data, frame->size(), &end_loan, loan.get()) == 0);
  static_cast<void>(loan.release());
  if (zmq_msg_send(&msg, socket_.handle(), ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0) {
    return ok();
  }
  const int error = errno;
  zmq_msg_close(&msg);
  return Error{ErrorCode::kUnavailable, std::string("send: ") + zmq_strerror(error)};
}

Status ZmqChannel::send(Packet packet) {
  MEMSLOT_TRY(check_outgoing(packet));
  const std::size_t cost = cost_of(packet);
  const std::lock_guard lock(mutex_);
  if (closed_) return Error{ErrorCode::kUnavailable, "channel: expected open, found closed"};
  const auto budget = budget_of(packet.peer);
  if (budget->pending + cost > limits_.peer_bytes || total_->pending + cost > limits_.total_bytes) {
    ++stats_.overloaded;
    return Error{ErrorCode::kOverloaded, "send queue: expected room for " + std::to_string(cost) +
                                             " bytes, found " + std::to_string(budget->pending) +
                                             " pending for this peer, " +
                                             std::to_string(total_->pending) + " in all"};
  }
  if (server_) {
    MEMSLOT_TRY(send_route(packet.peer));
  }
  for (std::size_t i = 0; i < packet.frames.size(); ++i) {
    MEMSLOT_TRY(send_frame(packet.frames[i], budget, i + 1 < packet.frames.size()));
  }
  ++stats_.sent;
  // The socket's descriptor is edge-triggered, and sending may have eaten the edge of a packet that
  // came in the meantime: tell the thread that waits for it.
  if (waiting_ && (socket_.get(zmq::sockopt::events) & ZMQ_POLLIN) != 0) poke();
  return ok();
}

// --- receiving -----------------------------------------------------------------------------------

// True if the frame is within the limits and was taken. Index counts without the route.
bool ZmqChannel::take_frame(Message& message, std::size_t index, Packet& out) {
  if (!is_frame_allowed(index, message.size())) return false;
  if (index == 0) out.user = message.property("User-Id");
  if (zap_ && out.user.empty()) return false;  // never past the doorkeeper without a name
  const auto* begin = reinterpret_cast<const std::byte*>(message.data());
  out.frames.push_back(
      std::make_shared<const std::vector<std::byte>>(begin, begin + message.size()));
  return true;
}

ZmqChannel::Taken ZmqChannel::take(Packet& out) {
  bool good = true;
  std::size_t index = 0;
  bool route = server_;
  for (bool more = true; more;) {
    Message message;
    if (zmq_msg_recv(message.get(), socket_.handle(), ZMQ_DONTWAIT) < 0) return Taken::kNothing;
    more = message.more();
    if (route) {
      out.peer.assign(message.data(), message.size());
      route = false;
    } else {
      good = good && take_frame(message, index++, out);  // what is over is read, but not kept
    }
  }
  return good && index > 0 ? Taken::kPacket : Taken::kDropped;
}

// A refused client is not told by the socket itself: it tries again for ever.
void ZmqChannel::watch_handshakes() {
  constexpr const char* kEvents = "inproc://handshakes";
  constexpr int kFailures = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                            ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
  if (zmq_socket_monitor(socket_.handle(), kEvents, kFailures) != 0) throw zmq::error_t();
  events_ = zmq::socket_t(context_, zmq::socket_type::pair);
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(kEvents);
}

void ZmqChannel::note_handshakes() {
  if (!events_) return;
  for (bool more = true;;) {
    Message message;  // the event's number and value; then the endpoint
    if (zmq_msg_recv(message.get(), events_.handle(), ZMQ_DONTWAIT) < 0) return;
    const bool first = std::exchange(more, message.more());
    if (!first || !message.more() || message.size() < sizeof(std::uint16_t)) continue;
    std::uint16_t event = 0;
    std::memcpy(&event, message.data(), sizeof event);
    ++(event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ? stats_.refused : stats_.failed_handshakes);
    if (stats_.refused + stats_.failed_handshakes > 1) continue;
    log::warn("link to {}: {}", endpoint_,
              stats_.refused > 0 ? "this key is not on the controller's list of clients"
                                 : "the handshake failed: keys on one side only, or another server "
                                   "key");
  }
}

void ZmqChannel::wait(std::unique_lock<std::mutex>& lock, TimePoint deadline) {
  const int socket_fd = socket_.get(zmq::sockopt::fd);
  waiting_ = true;
  lock.unlock();
  pollfd fds[2] = {{socket_fd, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
  const auto left = std::clamp<Duration>(deadline - std::chrono::steady_clock::now(),
                                         Duration::zero(), std::chrono::hours(1));
  const timespec timeout{left / std::chrono::seconds(1), (left % std::chrono::seconds(1)).count()};
  ::ppoll(fds, 2, &timeout, nullptr);
  if (fds[1].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(wake_fd_, &count, sizeof count);
  }
  lock.lock();
  waiting_ = false;
  idle_.notify_all();
}

Result<Packet> ZmqChannel::receive(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (closed_) return Error{ErrorCode::kCancelled, "channel: closed"};
    note_handshakes();
    if (woken_.exchange(false)) return Error{ErrorCode::kUnavailable, "woken"};
    Packet packet;
    switch (take(packet)) {
      case Taken::kPacket: ++stats_.received; return packet;
      case Taken::kDropped: ++stats_.dropped; continue;
      case Taken::kNothing: break;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error{ErrorCode::kTimeout, "receive: nothing before the deadline"};
    }
    wait(lock, deadline);
  }
}

}  // namespace

Result<std::unique_ptr<Channel>> bind_channel(const ServerOptions& options) {
  MEMSLOT_TRY(zmq_internal::check_options(options));
  MEMSLOT_TRY(zmq_internal::check_ipc_free(options.endpoint));
  try {
    auto channel = std::make_unique<ZmqChannel>(
        /*server=*/true, Limits{options.max_pending_bytes, options.max_total_bytes});
    channel->bind(options);
    return channel;
  } catch (const zmq::error_t& error) {
    return zmq_internal::socket_error("bind", options.endpoint, error.num());
  }
}

Result<std::unique_ptr<Channel>> connect_channel(const ClientOptions& options) {
  MEMSLOT_TRY(zmq_internal::check_options(options));
  try {
    auto channel = std::make_unique<ZmqChannel>(
        /*server=*/false, Limits{options.max_pending_bytes, options.max_pending_bytes});
    channel->connect(options);
    return channel;
  } catch (const zmq::error_t& error) {
    return zmq_internal::socket_error("connect", options.endpoint, error.num());
  }
}

}  // namespace memslot
