// The default model: random swaps of lora memories at layer 22 in recompute mode equal a cold
// run bit for bit (or, without row-invariance, the same calls). 5 schedules, 50 with
// MEMSLOT_FULL=1. Weights bf16 where the processor has it.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <random>

#include "generator/backend/open_backend.h"
#include "generator/runtime/session.h"
#include "shared/memory/layout/lora.h"
#include "tests/runtime/cold_run.h"
#include "tests/support/model_path.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

using namespace testing_support;

bool go_on(std::int32_t) { return true; }

std::shared_ptr<const LoadedMemory> random_lora(const Gpt& gpt, const Sha256& digest,
                                                std::mt19937& rng) {
  const SlotSignature s = expected_signature(gpt, digest, 0, MemoryKind::kLora);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  const auto values = [&](std::int64_t n) {
    std::vector<float> out(static_cast<std::size_t>(n));
    for (float& v : out) v = normal(rng);
    return out;
  };
  LoraValues lora;
  lora.rank = 16;
  lora.alpha = 16;
  lora.gate = {values(16 * s.d_model), values(16 * s.d_ff)};
  lora.up = {values(16 * s.d_model), values(16 * s.d_ff)};
  lora.down = {values(16 * s.d_ff), values(16 * s.d_model)};
  const MemoryPayload payload = must(make_lora_payload(s, DType::kBF16, lora));
  return must(LoadedMemory::load(payload, {"default", "random", 1}, sha256(payload.bytes()), s,
                                 nullptr, gpt));
}

TEST(SmolLm, RandomSwapSchedulesInRecomputeModeEqualAColdRunBitForBit) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const char* full = std::getenv("MEMSLOT_FULL");
  const int schedules = full != nullptr && std::string(full) == "1" ? 50 : 5;
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  auto backend = must(open_backend({}));
  auto file = must(ModelFile::open(path));
  GptOptions options;
  options.weights = backend->info().bf16 ? DType::kBF16 : DType::kF32;
  options.slot_layers = {22};
  auto gpt = must(Gpt::load(file, *backend, options));
  const Sha256 digest = must(file.digest());
  auto scratch = must(LogitsScratch::make(*gpt));
  std::vector<std::shared_ptr<const LoadedMemory>> memories{nullptr};
  for (int i = 0; i < 4; ++i) memories.push_back(random_lora(*gpt, digest, rng));

  SessionSettings settings;
  settings.kv = wire::KvMode::kRecompute;
  settings.figures = false;
  for (int n = 0; n < schedules; ++n) {
    auto hot = must(Session::make(*gpt, scratch, settings));
    std::vector<std::int32_t> prompt;
    for (std::size_t left = 4 + rng() % 60; left > 0; --left)
      prompt.push_back(static_cast<std::int32_t>(rng() % 49152));
    must(hot->add_tokens(prompt));
    while (!must(hot->prefill(512))) {
    }
    SlotChange change{0, nullptr};
    std::vector<ScheduleEvent> schedule;
    for (int swap = 0; swap < 4; ++swap) {
      ScheduleEvent event{1 + static_cast<int>(rng() % 6), kNoSwap};
      must(hot->write(event.written, go_on));
      const auto& next = memories[rng() % memories.size()];
      if (next != change.memory) event.lowest = 0;
      change.memory = next;
      must(hot->activate({&change, 1}));
      schedule.push_back(event);
    }
    const auto known = hot->tokens();
    const StepOutput hot_out = must(hot->write(3, go_on));
    auto cold = cold_run(*gpt, scratch, settings, known, prompt.size(), {&change, 1}, schedule,
                         {&memories[1], 1});
    const StepOutput cold_out = must(cold->write(3, go_on));
    for (std::size_t i = 0; i < 3; ++i) {
      ASSERT_EQ(hot_out.tokens[i].token, cold_out.tokens[i].token) << "schedule " << n;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(hot_out.tokens[i].log_prob),
                std::bit_cast<std::uint32_t>(cold_out.tokens[i].log_prob))
          << "schedule " << n << " token " << i;
    }
  }
}

}  // namespace
}  // namespace memslot
