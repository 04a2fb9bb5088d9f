// The tiny Llama and GPT-2 models against transformers: every layer's residual stream, logits, NLL
// and greedy continuation, in f32.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/gpt/gpt_harness.h"

namespace memslot::testing_support {
namespace {

std::vector<std::string> tiny_fixtures() {
  auto all = fixtures_matching("llama_tiny*.safetensors");
  const auto gpt2 = fixtures_matching("gpt2_tiny*.safetensors");
  all.insert(all.end(), gpt2.begin(), gpt2.end());
  return all;
}

class TinyModel : public testing::TestWithParam<std::string> {
 protected:
  Fixture fixture_ = Fixture::open(GetParam());
  std::string model_ = fixture_dir() + "/" + fixture_.meta("model_folder");
  Ids ids_ = ids_of(fixture_.ids("ids"));

  void compare(std::span<const float> got, const std::string& name) {
    expect_close(got, fixture_.tensor(name).values, fixture_.tol_abs(), fixture_.tol_rel(), name);
  }
};

TEST_P(TinyModel, HiddenStatesLogitsAndLossesAreTheReferences) {
  const auto h = GptHarness::open(model_, {.weights = DType::kF32});
  auto cache = h.kv();
  const auto hidden = h.hidden(ids_, cache);
  compare(hidden, "hidden_final_norm");
  const auto logits = h.logits(hidden);
  compare(logits, "logits");
  compare(h.nll(logits, ids_), "nll");
}

// A slot in every layer shows what flows between them.
TEST_P(TinyModel, EveryLayersResidualStreamIsTheReferences) {
  const auto layers = static_cast<int>(fixture_.number("layers"));
  GptOptions options{.weights = DType::kF32};
  for (int l = 0; l < layers; ++l) options.slot_layers.push_back(l);
  const auto h = GptHarness::open(model_, options);
  const auto d = static_cast<std::size_t>(h.gpt->config().d_model), size = ids_.size() * d;
  std::vector<std::vector<float>> in(options.slot_layers.size()), out(in.size());
  const SlotForward look = [&](const SlotCall& call) {
    h.gpt->mlp(h.gpt->layer(static_cast<int>(call.slot)).mlp, call.x, call.y);
    in[call.slot].assign(static_cast<const float*>(call.x.data), call.x.f32() + size);
    out[call.slot].assign(call.y.f32(), call.y.f32() + size);
  };
  auto cache = h.kv();
  h.hidden(ids_, cache, &look);
  std::vector<float> stream;
  for (std::size_t l = 0; l < in.size(); ++l) {
    const float* residual = cache.slot_residual(l).f32();
    if (l == static_cast<std::size_t>(fixture_.number("layer"))) {
      compare({residual, size}, "layer2_residual");
      compare(in[l], "layer2_mlp_input");
      compare(out[l], "layer2_mlp_output");
    }
    for (std::size_t i = 0; i < size; ++i) stream.push_back(residual[i] + out[l][i]);
  }
  compare(stream, "hidden_after_layer");
}

TEST_P(TinyModel, TheGreedyContinuationIsTheReferences) {
  const auto h = GptHarness::open(model_, {.weights = DType::kF32});
  const auto want = ids_of(fixture_.ids("greedy_ids"));
  EXPECT_EQ(h.greedy(ids_, want.size()), want);
}

std::string case_name(const testing::TestParamInfo<std::string>& info) {
  auto name = Fixture::open(info.param).name();
  std::replace_if(
      name.begin(), name.end(),
      [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, TinyModel, testing::ValuesIn(tiny_fixtures()), case_name);

TEST(TinyModels, BothFamiliesHaveFixtures) {
  EXPECT_FALSE(fixtures_matching("llama_tiny*.safetensors").empty());
  EXPECT_FALSE(fixtures_matching("gpt2_tiny*.safetensors").empty());
}

}  // namespace
}  // namespace memslot::testing_support
