// Question: how long does a step's message take to the controller and back?
// Budget:   75 to 110 us at the median for 3 kB over ipc, of the 250 us that a selection may take.
//
// Prints median and p99, in microseconds, of: encode and decode of an Observation of the default
// model (D = 576); an echo between two threads over the bare channel (3 kB each way); a call() of
// RpcClient with encode and decode on both ends. Run when the machine is quiet.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <unistd.h>
#include <vector>

#include "shared/transport/rpc_client.h"
#include "shared/transport/zmq_channel.h"
#include "shared/wire/codec.h"

namespace {

using namespace memslot;
using wire::Message;

constexpr int kRounds = 5000;

TimePoint now() { return std::chrono::steady_clock::now(); }
TimePoint soon() { return now() + std::chrono::seconds(5); }

class Samples {
 public:
  template <class Fn>
  void measure(Fn fn) {
    for (int i = 0; i < kRounds; ++i) {
      const TimePoint begin = now();
      fn();
      us_.push_back(static_cast<double>((now() - begin).count()) / 1000.0);
    }
  }
  void print(const char* what) {
    std::sort(us_.begin(), us_.end());
    std::printf("%-32s median %8.1f us   p99 %8.1f us\n", what, us_[us_.size() / 2],
                us_[us_.size() * 99 / 100]);
  }

 private:
  std::vector<double> us_;
};

wire::Observation observation() {
  wire::Observation m;
  m.chunks = {{std::vector<float>(576, 0.5f), 16}};
  m.active.resize(1);
  return m;
}

void bench_codec() {
  const Message message{1, observation(), {}};
  Samples encode, decode;
  encode.measure([&] { MEMSLOT_CHECK(wire::encode(message)); });
  const auto frames = wire::encode(message).value();
  decode.measure([&] { MEMSLOT_CHECK(wire::decode(frames)); });
  encode.print("encode Observation");
  decode.print("decode Observation");
}

struct Ends {
  std::unique_ptr<Channel> server, client;
};

Ends open(const std::string& endpoint) {
  ServerOptions server;
  server.endpoint = endpoint;
  auto bound = bind_channel(server);
  MEMSLOT_CHECK(bound);
  ClientOptions client;
  client.endpoint = bound.value()->endpoint();
  return {std::move(bound).value(), connect_channel(client).value()};
}

void bench_channel(const std::string& endpoint, const char* what) {
  const Ends ends = open(endpoint);
  std::thread echo([&] {
    while (auto packet = ends.server->receive(soon())) {
      static_cast<void>(ends.server->send(std::move(packet).value()));
    }
  });
  const auto frame = share_bytes(std::vector<std::byte>(3000));
  Samples samples;
  samples.measure([&] {
    MEMSLOT_CHECK(ends.client->send({"", {frame}}));
    MEMSLOT_CHECK(ends.client->receive(soon()));
  });
  samples.print(what);
  ends.server->close();
  echo.join();
}

// Answers Hello, Heartbeat and Observation, as a controller that has nothing to think about.
void serve(Channel& channel) {
  while (auto packet = channel.receive(soon())) {
    const auto request = wire::decode(packet.value().frames);
    MEMSLOT_CHECK(request);
    Message reply{request.value().request, wire::Heartbeat{1}, {}};
    if (std::holds_alternative<wire::Hello>(request.value().body)) {
      reply.body = wire::HelloReply{1, "", 1000};
    } else if (std::holds_alternative<wire::Observation>(request.value().body)) {
      reply.body =
          wire::Directive{0, 0, {{0, wire::ActionKind::kUse, {"a", "b", 1}, {}, -1}}, 0, 8, false};
    }
    MEMSLOT_CHECK(channel.send({packet.value().peer, wire::encode(reply).value()}));
  }
}

void bench_call(const std::string& endpoint, const char* what) {
  Ends ends = open(endpoint);
  std::thread controller([&] { serve(*ends.server); });
  RpcClient client(std::move(ends.client), {}, {});
  client.start();
  MEMSLOT_CHECK(client.wait_connected(soon()));
  Samples samples;
  samples.measure([&] { MEMSLOT_CHECK(client.call({0, observation(), {}}, soon())); });
  samples.print(what);
  client.stop();
  ends.server->close();
  controller.join();
}

}  // namespace

int main() {
  const std::string ipc = "ipc://" + (std::filesystem::temp_directory_path() /
                                      ("memslot_bench_" + std::to_string(::getpid())))
                                         .string();
  const std::string tcp = "tcp://127.0.0.1:0";
  bench_codec();
  bench_channel(ipc, "3 kB echo, ipc");
  bench_channel(tcp, "3 kB echo, tcp");
  bench_call(ipc, "Observation -> Directive, ipc");
  bench_call(tcp, "Observation -> Directive, tcp");
  return 0;
}
