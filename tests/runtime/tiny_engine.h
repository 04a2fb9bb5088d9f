#pragma once
// A whole engine around the tiny golden model, on token ids, with a loopback link; and memories of
// random values for its slots.
#include <random>

#include "generator/runtime/engine.h"
#include "generator/runtime/outer_parameters.h"
#include "shared/memory/layout/lora.h"
#include "shared/memory/layout/mlp.h"
#include "tests/runtime/fake_controller.h"

namespace memslot::testing_support {

inline std::vector<float> random_values(std::int64_t n, float scale, std::mt19937& rng) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& v : out) v = normal(rng);
  return out;
}

inline MemoryPayload random_mlp(const SlotSignature& s, std::mt19937& rng) {
  const std::int64_t n = std::int64_t{s.d_model} * s.d_ff;
  MlpValues values;
  values.gate = random_values(n, 0.12f, rng);
  values.up = random_values(n, 0.12f, rng);
  values.down = random_values(n, 0.12f, rng);
  return must(make_mlp_payload(s, DType::kF32, values));
}

inline MemoryPayload random_lora(const SlotSignature& s, std::mt19937& rng) {
  LoraValues values;
  values.rank = 4;
  values.alpha = 4;
  const auto map = [&](std::int64_t in, std::int64_t out) {
    return LoraValues::Map{random_values(4 * in, 0.2f, rng), random_values(4 * out, 0.2f, rng)};
  };
  values.gate = map(s.d_model, s.d_ff);
  values.up = map(s.d_model, s.d_ff);
  values.down = map(s.d_ff, s.d_model);
  return must(make_lora_payload(s, DType::kF32, values));
}

inline FakeController::Stored stored(const std::string& id, const MemoryPayload& payload,
                                     std::uint64_t version = 1) {
  FakeController::Stored out;
  out.payload = share_bytes({payload.bytes().begin(), payload.bytes().end()});
  out.version.ref = {"default", id, version};
  out.version.token = "token-" + id + "-" + std::to_string(version);
  out.version.signature = payload.signature();
  out.version.dtype = payload.dtype();
  out.version.source = "test";
  out.version.payload_bytes = payload.bytes().size();
  out.version.sha256 = sha256(payload.bytes());
  return out;
}

struct TinyEngine {
  TinyModel tiny;
  Tokenizer tokenizer = byte_tokenizer();
  SystemClock clock;
  Sha256 digest;
  LogitsScratch scratch;
  ResidentSet residents;
  ComputeGate gate{clock};
  Scheduler scheduler{gate, {4, 2}};
  std::unique_ptr<MemoryLoader> loader;
  std::shared_ptr<LoopbackNetwork> network = LoopbackNetwork::make();
  FakeController controller{network};
  std::unique_ptr<ControllerLink> link;
  std::unique_ptr<Outbox> outbox;
  std::unique_ptr<OuterParameters> outer;
  SessionProbe probe;
  std::unique_ptr<Engine> engine;
  std::function<void(wire::Message)> on_message;
  std::mt19937 rng{1};

  explicit TinyEngine(std::vector<int> slots = {2}, std::size_t resident_bytes = 64 << 20)
      // One thread: the model is too small for two, and a loaded machine would make them wait.
      : tiny(TinyModel::open(fixture_dir() + "/llama_tiny_theta10000_hf", std::move(slots),
                             DType::kF32,
                             /*threads=*/1)),
        digest(must(tiny.file.digest())),
        scratch(must(LogitsScratch::make(*tiny.gpt))),
        residents(resident_bytes) {
    loader = std::make_unique<MemoryLoader>(*tiny.gpt, digest, residents);
    scheduler.start();
  }
  ~TinyEngine() {
    if (outbox) outbox->stop();
    scheduler.stop();
    if (link) link->stop();
  }

  void connect() {
    wire::Hello hello;
    hello.role = wire::PeerRole::kGenerator;
    hello.incarnation = 77;
    hello.model = digest;
    hello.learn_workers = 1;
    link = std::make_unique<ControllerLink>(network->connect(""), hello, [this](wire::Message m) {
      if (on_message) on_message(std::move(m));
    });
    outbox = std::make_unique<Outbox>(*link, clock, std::size_t{1} << 20);
    outer = std::make_unique<OuterParameters>(*tiny.gpt, digest, *link, clock, 1);
    loader->set_outer_source([this](std::size_t s, MemoryKind k) { return outer->get(s, k); });
    engine =
        std::make_unique<Engine>(Engine{*tiny.gpt, &tokenizer, digest, must(tiny.gpt->attest()),
                                        scratch, *loader, scheduler, *link, *outbox, probe, clock});
    outbox->start();
    link->start();
    must(link->wait_connected(clock.now() + std::chrono::seconds(5)));
  }

  SlotSignature signature(std::size_t slot, MemoryKind kind) const {
    return expected_signature(*tiny.gpt, digest, slot, kind);
  }
  FakeController::Stored mlp(const std::string& id, std::size_t slot = 0) {
    return stored(id, random_mlp(signature(slot, MemoryKind::kMlp), rng));
  }
  FakeController::Stored lora(const std::string& id, std::size_t slot = 0) {
    return stored(id, random_lora(signature(slot, MemoryKind::kLora), rng));
  }
  std::shared_ptr<const LoadedMemory> load(const FakeController::Stored& memory,
                                           std::uint32_t slot = 0) {
    return must(loader->load(slot, memory.version.ref, memory.version.sha256, memory.payload));
  }
  std::unique_ptr<Session> session(SessionSettings settings = {}) {
    return must(Session::make(*tiny.gpt, scratch, std::move(settings)));
  }
};

}  // namespace memslot::testing_support
