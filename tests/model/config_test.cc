#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "generator/model/gguf_config.h"
#include "generator/model/json_config.h"
#include "tests/support/gguf_bytes.h"

namespace memslot {
namespace {

using Family = ModelConfig::Family;
using testing::HasSubstr;
using testing_support::GgufBytes;

constexpr const char* kLlama = R"({"model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
  "intermediate_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
  "bos_token_id": 1, "eos_token_id": [2, 3]})";
constexpr const char* kGpt2 =
    R"({"model_type": "gpt2", "n_embd": 64, "n_layer": 4, "n_head": 4, "n_inner": null,
  "n_positions": 64, "vocab_size": 256, "activation_function": "gelu_new"})";

// `text` with one "from" replaced.
std::string with(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(JsonConfig, ReadsALlama) {
  const auto c = config_from_json(kLlama);
  ASSERT_TRUE(c) << c.error().message;
  const ModelConfig expected{.family = Family::kLlama,
                             .layers = 4,
                             .d_model = 64,
                             .d_ff = 160,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .vocab = 256,
                             .context = 128,
                             .norm_eps = 1e-5f,
                             .rope_theta = 1e5f,
                             .tied_output = false,
                             .mlp_form = MlpForm::kSwiGlu,
                             .bos = 1,
                             .eos = 2,
                             .name = ""};
  EXPECT_EQ(c.value(), expected);
}

TEST(JsonConfig, FindsRopeThetaInNewerFilesToo) {
  const auto c =
      config_from_json(with(kLlama, R"("rope_theta": 100000.0)",
                            R"("rope_parameters": {"rope_theta": 500.0, "rope_type": "default"})"));
  EXPECT_EQ(c.value().rope_theta, 500.0f);
}

TEST(JsonConfig, ReadsAGpt2WithItsDefaults) {
  const auto c = config_from_json(kGpt2);
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c.value().family, Family::kGpt2);
  EXPECT_EQ(c.value().d_ff, 256);
  EXPECT_EQ(c.value().kv_heads, 4);
  EXPECT_EQ(c.value().head_dim, 16);
  EXPECT_TRUE(c.value().tied_output);
  EXPECT_EQ(c.value().mlp_form, MlpForm::kGeluTanh);
  EXPECT_EQ(c.value().bos, -1);
}

struct BadConfig {
  const char* name;
  ErrorCode code;
  const char* message;
  std::string text;
};
class BadJsonConfig : public testing::TestWithParam<BadConfig> {};

TEST_P(BadJsonConfig, IsRefusedWithItsReason) {
  const auto c = config_from_json(GetParam().text);
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, GetParam().code);
  EXPECT_THAT(c.error().message, HasSubstr(GetParam().message));
}

constexpr auto kCorruption = ErrorCode::kCorruption;
constexpr auto kNotSupported = ErrorCode::kNotSupported;

INSTANTIATE_TEST_SUITE_P(
    Texts, BadJsonConfig,
    testing::Values(
        BadConfig{"NotJson", kCorruption, "config.json: expected a JSON object, found no JSON",
                  "{"},
        BadConfig{"NestedDeeperThanTheStack", kCorruption,
                  "config.json nesting: expected at most 64, found deeper",
                  "{\"model_type\":" + std::string(1000000, '[') + std::string(1000000, ']') + "}"},
        BadConfig{"NotAnObject", kCorruption, "config.json: expected a JSON object, found array",
                  "[]"},
        BadConfig{"NoType", kCorruption,
                  "config.json model_type: expected llama or gpt2, found none", "{}"},
        BadConfig{"OtherType", kNotSupported, "model_type: expected llama or gpt2, found \"mamba\"",
                  R"({"model_type": "mamba"})"},
        BadConfig{"NoLayers", kCorruption,
                  "config.json num_hidden_layers: expected an integer, found none",
                  with(kLlama, "num_hidden_layers", "x")},
        BadConfig{"LayersAsText", kCorruption,
                  "num_hidden_layers: expected an integer, found string",
                  with(kLlama, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": \"4\"")},
        BadConfig{"NegativeLayers", kCorruption,
                  "config.json: layers: expected 1 to 1024, found -4",
                  with(kLlama, "\"num_hidden_layers\": 4", "\"num_hidden_layers\": -4")},
        BadConfig{"HugeWidth", kCorruption, "hidden_size: expected an integer, found number",
                  with(kLlama, "\"hidden_size\": 64", "\"hidden_size\": 99999999999999999999")},
        BadConfig{"HugeButWholeWidth", kCorruption, "hidden_size: expected a 32-bit integer",
                  with(kLlama, "\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615")},
        BadConfig{"WidthNotOfHeads", kCorruption,
                  "heads: expected a divisor of the width 63, found 4",
                  with(kLlama, "\"hidden_size\": 64", "\"hidden_size\": 63")},
        BadConfig{"ZeroHeads", kCorruption, "heads: expected a divisor",
                  with(kLlama, "\"num_attention_heads\": 4", "\"num_attention_heads\": 0")},
        BadConfig{"KvHeadsNotADivisor", kCorruption,
                  "kv_heads: expected a divisor of heads 4, found 3",
                  with(kLlama, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")},
        BadConfig{"OddHeadDim", kCorruption, "head_dim: expected an even number, found 15",
                  with(kLlama, "\"hidden_size\"", "\"head_dim\": 15, \"hidden_size\"")},
        BadConfig{"OtherActivation", kNotSupported,
                  "hidden_act: expected silu or swish, found \"gelu\"",
                  with(kLlama, "silu", "gelu")},
        BadConfig{"MlpBias", kNotSupported, "mlp_bias: expected false, found true",
                  with(kLlama, "\"hidden_size\"", "\"mlp_bias\": true, \"hidden_size\"")},
        BadConfig{"RopeScaling", kNotSupported, "rope_type: expected default, found \"llama3\"",
                  with(kLlama, "\"hidden_size\"",
                       "\"rope_scaling\": {\"rope_type\": \"llama3\"}, \"hidden_size\"")},
        BadConfig{"RopeThetaText", kCorruption, "rope_theta: expected a number, found string",
                  with(kLlama, "100000.0", "\"big\"")},
        BadConfig{"NormEpsZero", kCorruption, "norm_eps: expected between 0 and 1",
                  with(kLlama, "1e-5", "0")},
        BadConfig{"EosOutside", kCorruption, "eos id: expected -1 to 255, found 300",
                  with(kLlama, "[2, 3]", "300")},
        BadConfig{"Gpt2OtherActivation", kNotSupported, "activation_function",
                  with(kGpt2, "gelu_new", "relu")},
        BadConfig{
            "Gpt2ScaledByLayer", kNotSupported, "scale_attn_by_inverse_layer_idx: expected false",
            with(kGpt2, "\"n_embd\"", "\"scale_attn_by_inverse_layer_idx\": true, \"n_embd\"")},
        BadConfig{"Gpt2HugeWidth", kCorruption, "n_embd",
                  with(kGpt2, "\"n_embd\": 64", "\"n_embd\": 2147483647")}),
    [](const auto& c) { return c.param.name; });

GgufBytes llama_header() {
  GgufBytes file;
  file.text("general.architecture", "llama")
      .text("general.name", "tiny")
      .u32("llama.block_count", 2);
  file.u32("llama.embedding_length", 8)
      .u32("llama.feed_forward_length", 12)
      .u32("llama.context_length", 32);
  file.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 1);
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).f32("llama.rope.freq_base", 500.0f);
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
  file.texts("tokenizer.ggml.tokens", {"a", "b", "<|end|>"})
      .i32s("tokenizer.ggml.token_type", {1, 1, 3});
  file.texts("tokenizer.ggml.merges", {}).u32("tokenizer.ggml.eos_token_id", 2);
  file.f32_tensor("token_embd.weight", {3, 8}, std::vector<float>(24));
  return file;
}

GgufIndex parsed(const GgufBytes& file) {
  const auto bytes = file.build();
  return GgufIndex::parse(std::as_bytes(std::span(bytes))).value();
}

TEST(GgufConfig, ReadsALlamaAndItsTokenizer) {
  const auto index = parsed(llama_header());
  const auto c = config_from_gguf(index);
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c.value().head_dim, 4);
  EXPECT_EQ(c.value().vocab, 3) << "from the embedding, where no key says so";
  EXPECT_EQ(c.value().rope_theta, 500.0f);
  EXPECT_TRUE(c.value().tied_output) << "no output.weight";
  EXPECT_EQ(c.value().eos, 2);
  EXPECT_EQ(c.value().bos, -1);
  EXPECT_EQ(c.value().name, "tiny");
  const auto spec = tokenizer_from_gguf(index);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec.value().pre, PreTokenizer::kSmolLm);
  EXPECT_EQ(spec.value().types[2], TokenType::kControl);
}

TEST(GgufConfig, WithoutTokensTheTokenizerIsEmpty) {
  const auto spec = tokenizer_from_gguf(parsed(llama_header().without("tokenizer.ggml.tokens")));
  EXPECT_TRUE(spec.value().tokens.empty());
}

TEST(GgufConfig, TakesNoPreTokenizerForGpt2s) {
  for (const char* pre : {"gpt-2", "default"}) {
    EXPECT_EQ(
        tokenizer_from_gguf(parsed(llama_header().text("tokenizer.ggml.pre", pre))).value().pre,
        PreTokenizer::kGpt2);
  }
  EXPECT_EQ(tokenizer_from_gguf(parsed(llama_header().without("tokenizer.ggml.pre"))).value().pre,
            PreTokenizer::kGpt2);
}

struct BadHeader {
  const char* name;
  ErrorCode code;
  const char* message;
  void (*spoil)(GgufBytes&);
};
class BadGgufConfig : public testing::TestWithParam<BadHeader> {};

TEST_P(BadGgufConfig, IsRefusedWithItsReason) {
  auto file = llama_header();
  GetParam().spoil(file);
  const auto index = parsed(file);
  const auto c = config_from_gguf(index);
  const auto spec = tokenizer_from_gguf(index);
  ASSERT_TRUE(!c || !spec);
  const auto& error = !c ? c.error() : spec.error();
  EXPECT_EQ(error.code, GetParam().code);
  EXPECT_THAT(error.message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, BadGgufConfig,
    testing::Values(
        BadHeader{"OtherArchitecture", kNotSupported,
                  "'general.architecture': expected llama, found qwen2",
                  [](GgufBytes& f) { f.text("general.architecture", "qwen2"); }},
        BadHeader{"NoArchitecture", kCorruption,
                  "'general.architecture': expected text, found none",
                  [](GgufBytes& f) { f.without("general.architecture"); }},
        BadHeader{"NoLayers", kCorruption, "'llama.block_count': expected an integer, found none",
                  [](GgufBytes& f) { f.without("llama.block_count"); }},
        BadHeader{"NoHeads", kCorruption, "head_count': expected 1 or more, found 0",
                  [](GgufBytes& f) {
                    f.u32("llama.attention.head_count", 0).u32("llama.attention.head_count_kv", 1);
                  }},
        BadHeader{"HugeWidth", kCorruption, "expected a 32-bit integer",
                  [](GgufBytes& f) { f.u32("llama.embedding_length", 0xFFFFFFFF); }},
        BadHeader{"HugeHeads", kCorruption, "heads: expected",
                  [](GgufBytes& f) {
                    f.u32("llama.attention.head_count", 1 << 30)
                        .u32("llama.attention.key_length", 1 << 19);
                  }},
        BadHeader{"Experts", kNotSupported, "'llama.expert_count': expected 0, found 8",
                  [](GgufBytes& f) { f.u32("llama.expert_count", 8); }},
        BadHeader{"PartialRope", kNotSupported, "'llama.rope.dimension_count': expected 4, found 2",
                  [](GgufBytes& f) { f.u32("llama.rope.dimension_count", 2); }},
        BadHeader{"RopeScaling", kNotSupported,
                  "'llama.rope.scaling.type': expected none, found yarn",
                  [](GgufBytes& f) { f.text("llama.rope.scaling.type", "yarn"); }},
        BadHeader{"RopeFactors", kNotSupported,
                  "expected plain rope, found tensor 'rope_freqs.weight'",
                  [](GgufBytes& f) {
                    f.f32_tensor("rope_freqs.weight", {2}, {1, 1});
                  }},
        BadHeader{"OtherTokenizer", kNotSupported,
                  "'tokenizer.ggml.model': expected gpt2, found llama",
                  [](GgufBytes& f) { f.text("tokenizer.ggml.model", "llama"); }},
        BadHeader{"OtherPreTokenizer", kNotSupported,
                  "'tokenizer.ggml.pre': expected smollm, gpt-2 or default, found qwen2",
                  [](GgufBytes& f) { f.text("tokenizer.ggml.pre", "qwen2"); }},
        BadHeader{"SpacePrefix", kNotSupported, "add_space_prefix",
                  [](GgufBytes& f) { f.flag("tokenizer.ggml.add_space_prefix", true); }},
        BadHeader{"TypesTooFew", kCorruption, "token types: expected 3, found 1",
                  [](GgufBytes& f) { f.i32s("tokenizer.ggml.token_type", {1}); }},
        BadHeader{"TypeUnknown", kCorruption, "type of token 1: expected 1 to 6, found 7",
                  [](GgufBytes& f) {
                    f.i32s("tokenizer.ggml.token_type", {1, 7, 1});
                  }},
        BadHeader{"NoMerges", kCorruption,
                  "'tokenizer.ggml.merges': expected a list of text, found none",
                  [](GgufBytes& f) { f.without("tokenizer.ggml.merges"); }}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace memslot
