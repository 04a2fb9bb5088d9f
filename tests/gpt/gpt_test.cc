// Errors, options, growth of the cache, spans and attest, on the tiny Llama.
#include <gtest/gtest.h>

#include "tests/gpt/gpt_harness.h"

namespace memslot::testing_support {
namespace {

std::string tiny() { return fixtures_matching("llama_tiny_theta10000_hf").at(0); }
GptOptions f32_slots(std::vector<int> layers) {
  return {.weights = DType::kF32, .slot_layers = std::move(layers)};
}

TEST(GptLoad, SlotLayersMustAscendAndExist) {
  const auto backend = open_backend({}).value();
  const auto file = ModelFile::open(tiny());
  ASSERT_TRUE(file.has_value());
  for (const auto& layers :
       {std::vector<int>{2, 1}, {1, 1}, {-1}, {file.value().config().layers}}) {
    const auto gpt = Gpt::load(file.value(), *backend, f32_slots(layers));
    ASSERT_FALSE(gpt.has_value());
    EXPECT_EQ(gpt.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(GptLoad, WeightTypesOtherThanF32AndBf16AreRefused) {
  const auto backend = open_backend({}).value();
  const auto file = ModelFile::open(tiny());
  const auto gpt = Gpt::load(file.value(), *backend, {.weights = DType::kF16});
  EXPECT_EQ(gpt.error().code, ErrorCode::kInvalidArgument);
}

TEST(GptLoad, Bf16IsRefusedWhereTheProcessorLacksIt) {
  const auto backend = open_backend({}).value();
  const auto file = ModelFile::open(tiny());
  const auto gpt = Gpt::load(file.value(), *backend, {.weights = DType::kBF16});
  ASSERT_EQ(gpt.has_value(), backend->info().bf16);
  EXPECT_TRUE(gpt.has_value() || gpt.error().code == ErrorCode::kNotSupported);
}

TEST(GptLoad, ProgressRunsToItsTotal) {
  auto options = f32_slots({});
  int last = 0, total = -1;
  options.progress = [&](int done, int of) { last = done, total = of; };
  GptHarness::open(tiny(), options);
  EXPECT_EQ(last, total);
}

TEST(GptForward, BadTokensAndTooLongTextsLeaveTheCacheAsItWas) {
  const auto h = GptHarness::open(tiny(), f32_slots({1}));
  auto cache = h.kv();
  h.hidden({1, 2, 3}, cache);
  const Ids too_long(static_cast<std::size_t>(h.gpt->config().context - 2), 1);
  for (const Ids& ids : {Ids{h.gpt->config().vocab}, Ids{-1}, Ids{}, too_long}) {
    Sequence sequence{ids, &cache, nullptr, {}};
    const auto status = h.gpt->forward({&sequence, 1}, {}, true);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.length(), 3);
  }
}

TEST(GptAttest, ChangesWithAnyByteOfAnyTensorAndComesBackWithIt) {
  const auto h = GptHarness::open(tiny(), f32_slots({1}));
  const auto before = h.gpt->attest().value();
  EXPECT_EQ(GptHarness::open(tiny(), f32_slots({1})).gpt->attest().value(), before);
  const auto& layer = h.gpt->layer(1);
  for (const void* data : {layer.qkv->data(), layer.mlp.down->data(), h.gpt->output().data(),
                           static_cast<const void*>(layer.attn_norm.data())}) {
    auto* byte = static_cast<unsigned char*>(const_cast<void*>(data)) + 5;
    *byte ^= 1U;
    EXPECT_NE(h.gpt->attest().value(), before);
    *byte ^= 1U;
    EXPECT_EQ(h.gpt->attest().value(), before);
  }
}

TEST(KvCacheSpans, ExtendMergeAndTruncate) {
  const auto h = GptHarness::open(tiny(), f32_slots({1}));
  auto cache = h.kv();
  const auto read = [&](std::size_t count, const std::string& memory) {
    const auto ids = some_ids(count, h.gpt->config().vocab);
    Sequence sequence{ids, &cache, nullptr, {memory}};
    ASSERT_TRUE(h.gpt->forward({&sequence, 1}, {}, true).has_value());
  };
  read(4, ""), read(3, ""), read(5, "a");
  const std::vector<KvSpan> want = {{0, 7, {""}}, {7, 5, {"a"}}};
  EXPECT_EQ(cache.spans(), want);
  cache.truncate(9);
  EXPECT_EQ(cache.spans().back().count, 2);
  cache.truncate(7);
  EXPECT_EQ(cache.spans().size(), 1U);
  cache.relabel_all({"b"});
  EXPECT_EQ(cache.spans().at(0), (KvSpan{0, 7, {"b"}}));
}

TEST(KvCacheGrowth, KeepsWhatIsThereAndStopsAtTheContext) {
  const auto h = GptHarness::open(tiny(), f32_slots({1}));
  auto small = h.kv(1), large = h.kv(h.gpt->config().context);
  const auto ids = some_ids(20, h.gpt->config().vocab);
  h.hidden(ids, small), h.hidden(ids, large);
  ASSERT_TRUE(small.reserve(h.gpt->config().context).has_value());
  EXPECT_EQ(small.capacity(), h.gpt->config().context);
  EXPECT_EQ(small.bytes(), large.bytes());
  EXPECT_TRUE(same_bits(h.hidden({7}, small), h.hidden({7}, large)));
  const auto beyond = small.reserve(h.gpt->config().context + 1);
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace memslot::testing_support
