#pragma once
// A controller in a thread over the loopback channel, and peers to talk to it with.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "controller/link/server.h"
#include "shared/transport/loopback_channel.h"
#include "shared/wire/codec.h"
#include "storage/document_bank.h"
#include "tests/controller/memories.h"

namespace memslot {

// One end that speaks the wire by hand. Heartbeats are sent only when a test says so.
class TestPeer {
 public:
  TestPeer(LoopbackNetwork& network, const std::string& identity, wire::Hello hello)
      : channel_(network.connect(identity)), hello_(std::move(hello)) {}

  void hello() {
    send(hello_);
    const auto reply = expect<wire::HelloReply>();
    if (reply) controller_ = reply->incarnation;
  }
  // The request id that it was sent under.
  std::uint64_t send(wire::Body body, std::vector<SharedBytes> parts = {}) {
    const std::uint64_t request = ++next_;
    send_as(request, std::move(body), std::move(parts));
    return request;
  }
  void send_as(std::uint64_t request, wire::Body body, std::vector<SharedBytes> parts = {}) {
    auto frames = wire::encode({request, std::move(body), std::move(parts)});
    ASSERT_TRUE(frames) << frames.error().message;
    send_raw(std::move(frames).value());
  }
  void send_raw(std::vector<SharedBytes> frames) {
    Packet packet;
    packet.frames = std::move(frames);
    ASSERT_TRUE(channel_->send(std::move(packet)));
  }
  void beat() { send_as(0, wire::Heartbeat{hello_.incarnation}); }
  void drop() { channel_->close(); }

  // The next message but for heartbeats.
  std::optional<wire::Message> next(Duration within = std::chrono::seconds(5)) {
    const TimePoint end = clock_.now() + within;
    while (true) {
      const auto packet = channel_->receive(end);
      if (!packet) return std::nullopt;
      auto message = wire::decode(packet.value().frames);
      if (!message) {
        ADD_FAILURE() << message.error().message;
        return std::nullopt;
      }
      if (!std::holds_alternative<wire::Heartbeat>(message.value().body))
        return std::move(message).value();
      ++heartbeats_;
    }
  }
  template <class T>
  std::optional<T> expect(std::vector<SharedBytes>* parts = nullptr) {
    auto message = next();
    if (!message) {
      ADD_FAILURE() << "no message came";
      return std::nullopt;
    }
    T* const body = std::get_if<T>(&message->body);
    if (body == nullptr) {
      const auto* error = std::get_if<wire::ErrorReply>(&message->body);
      ADD_FAILURE() << "another message came: index " << message->body.index()
                    << (error == nullptr ? "" : ": " + error->message);
      return std::nullopt;
    }
    request_ = message->request;
    if (parts != nullptr) *parts = std::move(message->parts);
    return std::move(*body);
  }
  void expect_error(ErrorCode code) {
    const auto error = expect<wire::ErrorReply>();
    if (!error) return;
    EXPECT_EQ(error_code_name(error->code), error_code_name(code)) << error->message;
  }
  // The next event's JSON; a final failure's under "error".
  nlohmann::json event(bool* final = nullptr) {
    const auto e = expect<wire::TaskEvent>();
    if (!e) return {};
    if (final != nullptr) *final = e->final;
    auto json = nlohmann::json::parse(e->event);
    if (e->error) json["error"] = std::string(error_code_name(e->error->code));
    if (e->error) json["message"] = e->error->message;
    return json;
  }
  nlohmann::json admin(const std::string& verb,
                       const nlohmann::json& arguments = nlohmann::json::object(),
                       std::vector<SharedBytes> in = {}, std::vector<SharedBytes>* out = nullptr) {
    send(wire::AdminRequest{verb, arguments.dump()}, std::move(in));
    auto message = next();
    if (!message) return "nothing came";
    if (const auto* error = std::get_if<wire::ErrorReply>(&message->body)) {
      return {{"error", error_code_name(error->code)}, {"message", error->message}};
    }
    if (out != nullptr) *out = message->parts;
    const auto* reply = std::get_if<wire::AdminReply>(&message->body);
    return reply == nullptr ? nlohmann::json("another message came")
                            : nlohmann::json::parse(reply->result);
  }

  std::uint64_t request() const { return request_; }  // of the last expected message
  std::uint64_t controller() const { return controller_; }
  int heartbeats() const { return heartbeats_; }
  wire::Hello& said() { return hello_; }

 private:
  SystemClock clock_;
  std::unique_ptr<Channel> channel_;
  wire::Hello hello_;
  std::uint64_t next_ = 0, request_ = 0, controller_ = 0;
  int heartbeats_ = 0;
};

inline wire::Hello generator_hello(std::uint64_t incarnation = 100, std::uint32_t workers = 1) {
  wire::Hello h;
  h.role = wire::PeerRole::kGenerator;
  h.incarnation = incarnation;
  h.build = "test";
  h.model = slot_signature().model;
  h.model_name = "tiny";
  h.slots = {{.layer = 3, .form = MlpForm::kSwiGlu, .d_model = kDim, .d_ff = 16}};
  h.learn_workers = workers;
  return h;
}
inline wire::Hello client_hello(std::uint64_t incarnation = 500) {
  wire::Hello h;
  h.incarnation = incarnation;
  h.build = "test";
  return h;
}

class ServerTest : public testing::Test {
 protected:
  ~ServerTest() override { stop(); }
  void start(ServerSettings settings = quick_settings(), LoopbackOptions link = {}) {
    network_ = LoopbackNetwork::make(link);
    serve(std::move(settings));
  }
  // Another controller process on the same bank and endpoint.
  void serve(ServerSettings settings = quick_settings()) {
    channel_ = network_->bind().value();
    server_.emplace(*channel_, bank_, documents_, clock_, std::move(settings));
    ASSERT_TRUE(server_->start());
    thread_ = std::thread([this] { server_->run(); });
  }
  void stop() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
    counters_ = server_->counters();
    server_.reset();
    channel_.reset();
  }
  static ServerSettings quick_settings() {
    ServerSettings s;
    s.heartbeat = std::chrono::milliseconds(200);
    s.jobs.retry_pause = std::chrono::milliseconds(10);
    return s;
  }
  TestPeer& generator(std::uint64_t incarnation = 100, std::uint32_t workers = 1) {
    peers_.push_back(std::make_unique<TestPeer>(*network_, "g" + std::to_string(incarnation),
                                                generator_hello(incarnation, workers)));
    peers_.back()->hello();
    return *peers_.back();
  }
  TestPeer& client(std::uint64_t incarnation = 500) {
    peers_.push_back(std::make_unique<TestPeer>(*network_, "c" + std::to_string(incarnation),
                                                client_hello(incarnation)));
    peers_.back()->hello();
    return *peers_.back();
  }
  MemoryVersion publish(const std::string& id, float value = 1.0f, const std::string& config = "",
                        const std::string& text = "words") {
    const MemoryPayload payload = small_payload(value);
    MemoryDraft draft;
    draft.meta.ref = {.ns = "default", .id = id, .version = 0};
    draft.meta.token = new_token(clock_);
    draft.meta.signature = payload.signature();
    draft.meta.dtype = payload.dtype();
    draft.meta.source = "a-source";
    draft.meta.payload_bytes = payload.bytes().size();
    draft.meta.sha256 = sha256(payload.bytes());
    draft.payload = payload.bytes();
    draft.meta.stats.config = config;
    draft.source_text = text;
    if (const auto head = bank_.head(draft.meta.ref, kFarDeadline))
      draft.expected = head.value().token;
    return bank_.publish_memory(draft, kFarDeadline).value().version;
  }

  SystemClock clock_;
  MemoryStore store_{clock_};
  MemoryBank bank_{store_, clock_};
  DocumentBank documents_{store_, clock_};
  std::shared_ptr<LoopbackNetwork> network_;
  std::unique_ptr<Channel> channel_;
  std::optional<Server> server_;
  std::thread thread_;
  ServerCounters counters_;
  std::vector<std::unique_ptr<TestPeer>> peers_;
};

}  // namespace memslot
