// The selection round trip: observation to directive, over ipc, from a bank of 1,000 memories with
// 30 keys each, the chosen one resident. Prints one JSON line with the median and p99 in
// microseconds, for the whole round trip and for the controller's part of it (the step handler
// alone).
//
//   select_bench [memories] [keys each] [steps]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "controller/link/server.h"
#include "shared/base/log.h"
#include "shared/transport/rpc_client.h"
#include "shared/transport/zmq_channel.h"
#include "storage/memory_store.h"
#include "tests/support/small_payload.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

constexpr int kDim = 576;  // D of the default model
constexpr auto kSoon = std::chrono::seconds(30);

SlotSignature signature() {
  SlotSignature s;
  s.model = sha256(bytes_of("bench"));
  s.layer = 22;
  s.kind = MemoryKind::kLora;
  s.d_model = kDim;
  s.d_ff = 1536;
  return s;
}

class Bank {
 public:
  void fill(unsigned memories, unsigned keys_each) {
    std::normal_distribution<float> normal;
    for (unsigned i = 0; i < memories; ++i) {
      std::vector<float> centre(kDim);
      for (float& x : centre) x = normal(rng_);
      centres_.push_back(centre);
      MemoryKeys keys{kDim, {}};
      for (unsigned row = 0; row < keys_each * kDim; ++row) {
        keys.values.push_back(centre[row % kDim] + 1.2f * normal(rng_));
      }
      publish(i, keys);
    }
  }
  std::vector<float> query(unsigned memory) {
    std::normal_distribution<float> normal;
    std::vector<float> out = centres_[memory];
    for (float& x : out) x += normal(rng_);
    return out;
  }
  MemoryBank& memories() { return bank_; }
  DocumentBank& documents() { return documents_; }
  SystemClock& clock() { return clock_; }
  std::mt19937& rng() { return rng_; }

 private:
  void publish(unsigned number, const MemoryKeys& keys) {
    const auto payload =
        testing_support::payload_of(signature(), DType::kBF16, static_cast<float>(number));
    MemoryDraft draft;
    draft.meta.ref.id = fmt::format("m{}", number);
    draft.meta.token = new_token(clock_);
    draft.meta.signature = payload.signature();
    draft.meta.payload_bytes = payload.bytes().size();
    draft.meta.sha256 = sha256(payload.bytes());
    draft.payload = payload.bytes();
    draft.keys = &keys;
    MEMSLOT_CHECK(bank_.publish_memory(draft, deadline_in(clock_, kSoon)));
  }
  SystemClock clock_;
  MemoryStore store_{clock_};
  MemoryBank bank_{store_, clock_};
  DocumentBank documents_{store_, clock_};
  std::mt19937 rng_{1};
  std::vector<std::vector<float>> centres_;
};

double microseconds(Duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

wire::OpenSession session(std::uint64_t incarnation) {
  wire::OpenSession open;
  open.session = 1;
  open.incarnation = incarnation;
  open.model = signature().model;
  open.slots = {{.layer = 22, .form = MlpForm::kSwiGlu, .d_model = kDim, .d_ff = 1536}};
  open.namespaces = {"default"};
  open.policy = "nearest:-1";
  return open;
}

// Step after step: every memory is resident from the first step on.
std::vector<wire::Observation> observations(Bank& bank, unsigned memories, unsigned steps) {
  std::vector<wire::Observation> out(steps);
  for (unsigned i = 0; i < steps; ++i) {
    out[i].session = 1;
    out[i].step = i;
    out[i].chunks = {{bank.query(static_cast<unsigned>(bank.rng()()) % memories), 32}};
    out[i].tokens = 16;
    out[i].active = {{.slot = 0, .ref = {}, .reason = wire::ActiveReason::kDirective}};
    out[i].residents = {.epoch = 1, .base_epoch = i == 0 ? 0u : 1u, .added = {}, .removed = {}};
  }
  for (unsigned i = 0; i < memories; ++i) {
    out[0].residents.added.push_back(
        {0, {.ns = "default", .id = fmt::format("m{}", i), .version = 1}});
  }
  return out;
}

std::vector<double> time_handler(Bank& bank, const std::vector<wire::Observation>& steps) {
  IndexKeeper keeper(bank.memories(), bank.clock(), [] {});
  MEMSLOT_CHECK(keeper.build());
  PayloadCache payloads(bank.memories(), 1 << 26);
  SessionTable sessions;
  StepHandler handler(bank.memories(), keeper, payloads, sessions, {});
  MEMSLOT_CHECK(handler.open("g", session(1), deadline_in(bank.clock(), kSoon)));
  std::vector<double> out;
  for (const wire::Observation& observation : steps) {
    const TimePoint begin = bank.clock().now();
    MEMSLOT_CHECK(handler.handle("g", observation, begin + kSoon));
    out.push_back(microseconds(bank.clock().now() - begin));
  }
  return out;
}

std::vector<double> time_round_trips(Bank& bank, const std::vector<wire::Observation>& steps) {
  const testing_support::TemporaryFolder folder;
  const std::string endpoint = "ipc://" + folder.path() + "/link";
  ServerOptions server_end;
  server_end.endpoint = endpoint;
  ClientOptions client_end;
  client_end.endpoint = endpoint;
  const auto channel = bind_channel(server_end).value();
  Server server(*channel, bank.memories(), bank.documents(), bank.clock(), {});
  MEMSLOT_CHECK(server.start());
  std::thread thread([&] { server.run(); });

  RpcOptions options;
  options.hello.role = wire::PeerRole::kGenerator;
  options.hello.incarnation = 7;
  options.hello.model = signature().model;
  RpcClient rpc(connect_channel(client_end).value(), options, {});
  rpc.start();
  MEMSLOT_CHECK(rpc.wait_connected(deadline_in(bank.clock(), kSoon)));
  MEMSLOT_CHECK(rpc.call({0, session(7), {}}, deadline_in(bank.clock(), kSoon)));
  std::vector<double> out;
  for (const wire::Observation& observation : steps) {
    const TimePoint begin = bank.clock().now();
    const auto reply = rpc.call({0, observation, {}}, begin + kSoon);
    out.push_back(microseconds(bank.clock().now() - begin));
    MEMSLOT_CHECK(reply && reply.value().parts.empty());
  }
  rpc.stop();
  server.stop();
  thread.join();
  return out;
}

int run(int argc, char** argv) {
  const auto argument = [&](int at, unsigned fallback) {
    return argc > at ? static_cast<unsigned>(std::strtoul(argv[at], nullptr, 10)) : fallback;
  };
  const unsigned memories = argument(1, 1000), keys_each = argument(2, 30),
                 count = argument(3, 2000);
  MEMSLOT_CHECK(memories > 0 && count > 0);
  MEMSLOT_CHECK(log::start("select_bench", "warn"));
  Bank bank;
  bank.fill(memories, keys_each);
  const auto steps = observations(bank, memories, count);
  const TimePoint begin = bank.clock().now();
  IndexKeeper keeper(bank.memories(), bank.clock(), [] {});
  MEMSLOT_CHECK(keeper.build());
  const double build_ms = microseconds(bank.clock().now() - begin) / 1000;
  const auto handler = time_handler(bank, steps);
  const auto link = time_round_trips(bank, steps);
  std::printf(
      "{\"memories\":%u,\"keys\":%u,\"steps\":%u,\"index_build_ms\":%.0f,"
      "\"handler_p50_us\":%.1f,\"handler_p99_us\":%.1f,"
      "\"round_trip_p50_us\":%.1f,\"round_trip_p99_us\":%.1f}\n",
      memories, memories * keys_each, count, build_ms, quantile(handler, 0.5),
      quantile(handler, 0.99), quantile(link, 0.5), quantile(link, 0.99));
  return 0;
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) { return memslot::run(argc, argv); }
