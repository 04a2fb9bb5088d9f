#include "shared/transport/zmq_zap.h"

#include <array>

#include "shared/base/log.h"

namespace memslot::zmq_internal {
namespace {

// Request frames: version, request id, domain, address, identity, mechanism, credentials.
constexpr std::size_t kRequestFrames = 7;
constexpr std::size_t kMaxReported = 100;
enum Frame { kVersion = 0, kRequestId = 1, kAddress = 3, kMechanism = 5, kCredentials = 6 };

// The client's public key as Z85, or "" if this is no CURVE request.
std::string client_key(const std::vector<zmq::message_t>& frames) {
  if (frames.size() != kRequestFrames || frames[kVersion].to_string_view() != "1.0" ||
      frames[kMechanism].to_string_view() != "CURVE" || frames[kCredentials].size() != 32) {
    return {};
  }
  std::array<char, 41> text{};
  zmq_z85_encode(text.data(), frames[kCredentials].data<std::uint8_t>(), 32);
  return text.data();
}

}  // namespace

ZapServer::ZapServer(zmq::context_t& context, const std::vector<std::string>& allowed_keys)
    : allowed_(allowed_keys.begin(), allowed_keys.end()), socket_(context, zmq::socket_type::rep) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
  thread_ = std::thread([this] { run(); });
}

ZapServer::~ZapServer() { thread_.join(); }

void ZapServer::run() {
  // Goes on after any error but the context's end: without a handler ZeroMQ would let everybody in.
  for (bool running = true; running;) {
    try {
      answer_one();
    } catch (const zmq::error_t& error) {
      running = error.num() != ETERM;
      if (running) log::error("authentication: {}", error.what());
    }
  }
  socket_.close();  // here, as the context's end waits for it
}

void ZapServer::answer_one() {
  std::vector<zmq::message_t> frames;
  do {
    frames.emplace_back();
    if (!socket_.recv(frames.back())) return;
  } while (frames.back().more());

  const std::string key = client_key(frames);
  const bool allowed = !key.empty() && allowed_.contains(key);
  // Once a key: a stranger tries again for ever. The set is bounded, as strangers have many keys.
  if (!allowed && frames.size() > kAddress && reported_.size() < kMaxReported &&
      reported_.insert(key).second) {
    log::warn("authentication: expected a key on the allow-list, found {} from {}",
              key.empty() ? "none" : key, frames[kAddress].to_string_view());
  }
  const std::string request_id =
      frames.size() > kRequestId ? frames[kRequestId].to_string() : std::string();
  const std::array<std::string, 6> reply = {"1.0",
                                            request_id,
                                            allowed ? "200" : "400",
                                            allowed ? "OK" : "not on the allow-list",
                                            allowed ? key : "",
                                            ""};
  for (std::size_t i = 0; i < reply.size(); ++i) {
    const auto flags = i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
    socket_.send(zmq::buffer(reply[i]), flags);
  }
}

}  // namespace memslot::zmq_internal
