// Random swaps in recompute mode against cold runs, MEMSLOT_SCHEDULES times (CMakeLists.txt).
#include <gtest/gtest.h>

#include <bit>

#include "tests/runtime/cold_run.h"
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

void random_schedules(TinyEngine& tiny, int schedules, unsigned seed) {
  std::mt19937 rng(seed);
  SCOPED_TRACE(testing::Message() << "rerun with MEMSLOT_TEST_SEED=" << seed);
  std::vector<std::vector<std::shared_ptr<const LoadedMemory>>> memories(2);
  for (std::size_t slot = 0; slot < 2; ++slot) {
    memories[slot].push_back(nullptr);
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(slot) + std::to_string(i);
      memories[slot].push_back(
          tiny.load(tiny.mlp("m" + name, slot), static_cast<std::uint32_t>(slot)));
      memories[slot].push_back(
          tiny.load(tiny.lora("l" + name, slot), static_cast<std::uint32_t>(slot)));
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
    while (!must(hot->prefill(512))) {
    }
    SlotChange active[] = {{0, nullptr}, {1, nullptr}};
    std::vector<ScheduleEvent> schedule;
    const int swaps = 1 + static_cast<int>(rng() % 5);
    for (int i = 0; i < swaps; ++i) {
      ScheduleEvent event{1 + static_cast<int>(rng() % 8), kNoSwap};
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
    const std::shared_ptr<const LoadedMemory> other[] = {memories[0][1], memories[1][1]};
    auto cold = cold_run(*tiny.tiny.gpt, tiny.scratch, settings, known, prompt.size(), active,
                         schedule, other);
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
