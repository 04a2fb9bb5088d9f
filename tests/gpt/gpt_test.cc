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

TEST(KvCacheGrowth, StopsAtTheContext) {
  const auto h = GptHarness::open(tiny(), f32_slots({1}));
  auto cache = h.kv(1);
  ASSERT_TRUE(cache.reserve(h.gpt->config().context).has_value());
  EXPECT_EQ(cache.capacity(), h.gpt->config().context);
  const auto beyond = cache.reserve(h.gpt->config().context + 1);
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().code, ErrorCode::kInvalidArgument);
}

// What a cache holds, as the reader of a layer or a slot sees it.
struct HeldRows {
  Backend& backend;
  const KvCache& cache;
  std::vector<float> at(const void* data, std::int64_t first, std::int64_t count) const {
    std::vector<float> out(static_cast<std::size_t>(count));
    const auto* from = static_cast<const float*>(data) + first;
    EXPECT_TRUE(backend.download(std::as_writable_bytes(std::span(out)), from).has_value());
    return out;
  }
  std::vector<std::vector<float>> all(const ModelConfig& config) const {
    std::vector<std::vector<float>> out;
    const std::int64_t width = config.head_dim, stride = cache.capacity() * width;
    for (int l = 0; l < config.layers; ++l) {
      const KvView view = cache.layer(l);
      for (int g = 0; g < config.kv_heads; ++g) {
        out.push_back(at(view.keys, g * stride, cache.length() * width));
        out.push_back(at(view.values, g * stride, cache.length() * width));
      }
    }
    out.push_back(at(cache.slot_residual(0).data, 0, cache.length() * config.d_model));
    return out;
  }
};

// Every place of every buffer another number.
void fill(Backend& backend, const ModelConfig& config, const KvCache& cache, float from) {
  const auto upload = [&](void* to, std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = from++;
    ASSERT_TRUE(backend.upload(to, std::as_bytes(std::span(values))).has_value());
  };
  const std::int64_t places = config.kv_heads * cache.capacity() * config.head_dim;
  for (int l = 0; l < config.layers; ++l) {
    upload(cache.layer(l).keys, places);
    upload(cache.layer(l).values, places);
  }
  upload(cache.slot_residual(0).data, cache.capacity() * config.d_model);
}

// Larger than the tiny model's, so that a cache of it does not begin with room for all.
struct KvCacheRows : testing::Test {
  std::unique_ptr<Backend> backend = open_backend({.name = "cpu", .threads = 1}).value();
  ModelConfig config;
  KvCacheRows() {
    config.context = 1000;
    config.layers = 2, config.kv_heads = 3, config.head_dim = 4, config.d_model = 12;
  }
  KvCache make(std::int64_t capacity) {
    const int slots[] = {1};
    return KvCache::make(*backend, config, slots, DType::kF32, capacity).value();
  }
  KvCache filled() {
    KvCache out = make(300);
    fill(*backend, config, out, 0);
    out.append_span(200, {""}), out.append_span(90, {"a"});
    return out;
  }
  std::vector<std::vector<float>> held(const KvCache& cache) {
    return HeldRows{*backend, cache}.all(config);
  }
};

TEST_F(KvCacheRows, AreKeptAsItGrows) {
  KvCache cache = filled();
  const auto before = held(cache);
  const auto capacity = cache.capacity();
  ASSERT_TRUE(cache.reserve(900).has_value());
  EXPECT_GT(cache.capacity(), capacity);
  EXPECT_EQ(held(cache), before);
}

TEST_F(KvCacheRows, OfACopyAreTheSameAndItsOwnWhateverTheCapacities) {
  KvCache other = filled();
  const auto before = held(other);
  for (const std::int64_t room : {1, 700}) {  // less than the other's, and more
    KvCache copy = make(room);
    ASSERT_NE(other.capacity(), copy.capacity());
    copy.append_span(1, {"b"});
    ASSERT_TRUE(copy.copy_from(other).has_value());
    EXPECT_EQ(copy.length(), 290);
    EXPECT_EQ(copy.spans(), other.spans());
    EXPECT_EQ(held(copy), before) << room;
    fill(*backend, config, copy, -1e6F);
    EXPECT_EQ(held(other), before) << room;
  }
}

}  // namespace
}  // namespace memslot::testing_support
