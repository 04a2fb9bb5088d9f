// Random swaps in recompute mode against cold runs, MEMSLOT_SCHEDULES times (CMakeLists.txt).
#include <gtest/gtest.h>

#include <array>
#include <bit>

#include "tests/runtime/tiny_engine.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

using namespace testing_support;

std::vector<std::int32_t> ids(int count, int seed) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((seed + 37 * i) % 256);
  return out;
}

bool go_on(std::int32_t) { return true; }

// DESIGN, "KV consistency": after a swap in recompute mode everything is as in a run that had these
// memories all along; and "Bits": where rows depend on their batch, as in a run of the same calls.
struct Event {
  int written = 0;         // tokens
  std::size_t lowest = 2;  // then a swap at this slot; 2: nothing changed
};

// The session after reading `known` (the first `prompt` of them in one piece) with `active` all along.
std::unique_ptr<Session> cold_run(TinyEngine& tiny, const SessionSettings& settings,
                                  std::span<const std::int32_t> known, std::size_t prompt,
                                  std::span<const SlotChange> active,
                                  std::span<const Event> schedule,
                                  const std::array<std::shared_ptr<const LoadedMemory>, 2>& other) {
  auto cold = tiny.session(settings);
  must(cold->activate(active));
  const bool as_it_was = !tiny.tiny.backend->info().row_invariant;
  must(cold->add_tokens(as_it_was ? known.first(prompt) : known));
  while (!must(cold->prefill(512))) {}
  if (!as_it_was) return cold;
  for (const Event& event : schedule) {
    must(cold->add_tokens(known.subspan(cold->tokens().size(), static_cast<std::size_t>(event.written))));
    for (int i = 0; i < event.written; ++i) must(cold->read(1));
    if (event.lowest >= 2) continue;
    // Away and back: the same recompute calls, the same memories.
    const SlotChange away{event.lowest, active[event.lowest].memory == nullptr ? other[event.lowest] : nullptr};
    must(cold->activate({&away, 1}));
    must(cold->activate({&active[event.lowest], 1}));
  }
  return cold;
}

void random_schedules(TinyEngine& tiny, int schedules, unsigned seed) {
  std::mt19937 rng(seed);
  SCOPED_TRACE(testing::Message() << "rerun with MEMSLOT_TEST_SEED=" << seed);
  std::vector<std::vector<std::shared_ptr<const LoadedMemory>>> memories(2);
  for (std::size_t slot = 0; slot < 2; ++slot) {
    memories[slot].push_back(nullptr);
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(slot) + std::to_string(i);
      memories[slot].push_back(tiny.load(tiny.mlp("m" + name, slot), static_cast<std::uint32_t>(slot)));
      memories[slot].push_back(tiny.load(tiny.lora("l" + name, slot), static_cast<std::uint32_t>(slot)));
    }
  }
  SessionSettings settings;
  settings.kv = wire::KvMode::kRecompute;
  settings.digest_logits = true;
  settings.figures = false;
  for (int n = 0; n < schedules; ++n) {
    auto hot = tiny.session(settings);
    const auto prompt = ids(2 + static_cast<int>(rng() % 40), static_cast<int>(rng() % 256));
    must(hot->add_tokens(prompt));
    while (!must(hot->prefill(512))) {}
    SlotChange active[] = {{0, nullptr}, {1, nullptr}};
    std::vector<Event> schedule;
    const int swaps = 1 + static_cast<int>(rng() % 5);
    for (int i = 0; i < swaps; ++i) {
      Event event{1 + static_cast<int>(rng() % 8), 2};
      must(hot->write(event.written, go_on));
      for (std::size_t slot = 0; slot < 2; ++slot) {
        if (rng() % 2 == 0) continue;  // often only one of them
        const auto& next = memories[slot][rng() % memories[slot].size()];
        if (next != active[slot].memory) event.lowest = std::min(event.lowest, slot);
        active[slot].memory = next;
      }
      must(hot->activate(active));
      schedule.push_back(event);
    }
    const auto known = hot->tokens();
    const StepOutput hot_out = must(hot->write(4, go_on));
    auto cold = cold_run(tiny, settings, known, prompt.size(), active, schedule, {memories[0][1], memories[1][1]});
    const StepOutput cold_out = must(cold->write(4, go_on));
    ASSERT_EQ(hot_out.tokens.size(), cold_out.tokens.size());
    for (std::size_t i = 0; i < hot_out.tokens.size(); ++i) {
      ASSERT_EQ(hot_out.tokens[i].token, cold_out.tokens[i].token) << "schedule " << n;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(hot_out.tokens[i].log_prob),
                std::bit_cast<std::uint32_t>(cold_out.tokens[i].log_prob))
          << "schedule " << n << " token " << i;
    }
  }
}

TEST(RecomputeMode, RandomSwapSchedulesEqualAColdRunBitForBit) {
  TinyEngine tiny({1, 2});
  random_schedules(tiny, MEMSLOT_SCHEDULES, test_seed());
}

}  // namespace
}  // namespace memslot
