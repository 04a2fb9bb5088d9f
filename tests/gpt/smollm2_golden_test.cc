// SmolLM2-135M from the GGUF file, weights as f32, against transformers on real text.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/gpt/gpt_harness.h"
#include "tests/support/model_path.h"

namespace memslot::testing_support {
namespace {

void compare_text(const GptHarness& h, const Fixture& fixture) {
  SCOPED_TRACE(fixture.name());
  const auto close = [&](std::span<const float> got, const std::string& name) {
    expect_close(got, fixture.tensor(name).values, fixture.tol_abs(), fixture.tol_rel(), name);
  };
  const auto ids = ids_of(fixture.ids("ids"));
  auto cache = h.kv();
  const auto logits = h.logits(h.hidden(ids, cache));
  const auto vocab = static_cast<std::size_t>(h.gpt->config().vocab);
  close(h.nll(logits, ids), "nll");
  close(std::span(logits).last(vocab), "logits_last");
  const auto positions = fixture.ids("top10_pos"), top = fixture.ids("top10_ids");
  const auto per_position = top.size() / positions.size();
  std::vector<float> picked;
  for (std::size_t i = 0; i < top.size(); ++i) {
    const auto row = static_cast<std::size_t>(positions[i / per_position]);
    picked.push_back(logits[row * vocab + static_cast<std::size_t>(top[i])]);
  }
  close(picked, "top10_logits");
  std::vector<float> means;
  for (std::size_t row = 0; row < ids.size(); ++row) {
    double sum = 0;
    for (std::size_t v = 0; v < vocab; ++v) sum += static_cast<double>(logits[row * vocab + v]);
    means.push_back(static_cast<float>(sum / static_cast<double>(vocab)));
  }
  close(means, "logits_mean");
  const auto greedy = ids_of(fixture.ids("greedy_ids"));
  EXPECT_EQ(h.greedy(ids, greedy.size()), greedy);
}

TEST(SmolLm2, NllLogitsAndGreedyTextAreTheReferences) {
  MEMSLOT_MODEL_OR_SKIP(model);
  const auto fixtures = fixtures_matching("smollm2_text*.safetensors");
  ASSERT_FALSE(fixtures.empty());
  const auto h = GptHarness::open(model, {.weights = DType::kF32, .slot_layers = {22}});
  for (const auto& path : fixtures) compare_text(h, Fixture::open(path));
}

}  // namespace
}  // namespace memslot::testing_support
