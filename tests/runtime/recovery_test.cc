// "Recover memory": whatever is loaded, run, updated and unloaded, the base weights and what a new
// session computes stay as they were, bit for bit. MEMSLOT_OPERATIONS times (CMakeLists.txt).
#include <gtest/gtest.h>

#include "tests/runtime/tiny_engine.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

using namespace testing_support;

bool go_on(std::int32_t) { return true; }

Xxh128 logits_of_a_new_session(TinyEngine& tiny) {
  SessionSettings settings;
  settings.digest_logits = true;
  auto s = tiny.session(settings);
  const std::int32_t prompt[] = {7, 70, 200, 31, 8, 90, 45, 3};
  must(s->add_tokens(prompt));
  while (!must(s->prefill(512))) {
  }
  must(s->write(24, go_on));
  return s->logits_xxh3();
}

std::vector<FakeController::Stored> some_memories(TinyEngine& tiny) {
  std::vector<FakeController::Stored> out;
  for (int i = 0; i < 6; ++i) {
    const std::string number = std::to_string(i);
    out.push_back(tiny.mlp(std::string("m").append(number)));
    out.push_back(tiny.lora(std::string("l").append(number)));
  }
  const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
  const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                     MemoryKind::kDelta, sha256(outer->bytes()));
  const DeltaShape shape = tiny.outer->shape();
  out.push_back(
      stored("d", must(make_delta_state(signature, shape, DeltaStateValues::zero(shape)))));
  // Last: one that never loads.
  auto corrupt = tiny.mlp("corrupt");
  auto bytes = *corrupt.payload;
  bytes.back() ^= std::byte{0x40};
  corrupt.payload = share_bytes(std::move(bytes));
  out.push_back(std::move(corrupt));
  return out;
}

TEST(Recovery, BaseIsBitIdenticalAfterRandomLoadsUpdatesAndUnloads) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  TinyEngine tiny({2}, /*resident_bytes=*/std::size_t{600} << 10);  // a few fit: evictions happen
  tiny.connect();
  const Sha256 weights = must(tiny.tiny.gpt->attest());
  const Xxh128 logits = logits_of_a_new_session(tiny);
  const auto memories = some_memories(tiny);

  std::vector<std::unique_ptr<Session>> sessions;
  int failed = 0, updates = 0;
  for (int n = 0; n < MEMSLOT_OPERATIONS; ++n) {
    if (sessions.empty() || rng() % 40 == 0) {
      if (sessions.size() > 3) sessions.erase(sessions.begin());
      SessionSettings settings;
      settings.kv = rng() % 2 == 0 ? wire::KvMode::kActivated : wire::KvMode::kRecompute;
      sessions.push_back(tiny.session(settings));
      must(sessions.back()->add_tokens({{5, 6, 7}}));
      while (!must(sessions.back()->prefill(512))) {
      }
    }
    Session& s = *sessions[rng() % sessions.size()];
    switch (rng() % 4) {
      case 0: {  // load
        const auto& m = memories[rng() % memories.size()];
        auto loaded = tiny.loader->load(0, m.version.ref, m.version.sha256, m.payload);
        if (!loaded) {
          ++failed;
          break;
        }
        const SlotChange change{0, std::move(loaded).value()};
        must(s.activate({&change, 1}));
        break;
      }
      case 1:  // update: tokens change a stateful memory's state
        if (s.room() > 2) must(s.write(1, go_on));
        if (s.slot(0).dirty()) ++updates;
        break;
      case 2: {  // unload
        const SlotChange change{0, nullptr};
        must(s.activate({&change, 1}));
        break;
      }
      default:  // gone from the resident set
        tiny.residents.erase({0, memories[rng() % memories.size()].version.ref});
    }
  }
  EXPECT_GT(failed, 0) << "the corrupt one was tried";
  EXPECT_GT(updates, 0);
  sessions.clear();
  EXPECT_EQ(must(tiny.tiny.gpt->attest()), weights);
  EXPECT_EQ(logits_of_a_new_session(tiny), logits);
}

}  // namespace
}  // namespace memslot
