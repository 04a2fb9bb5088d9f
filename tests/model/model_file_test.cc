#include "generator/model/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "tests/support/gguf_bytes.h"
#include "tests/support/safetensors_bytes.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using testing::HasSubstr;
using testing_support::f32_bytes;
using testing_support::GgufBytes;
using testing_support::SafetensorsBytes;
using testing_support::TemporaryFolder;

// One layer, D = 8, F = 12, 2 heads of 4, 1 kv head, V = 3. Values count up from `first`.
std::vector<float> counting(std::size_t n, float first) {
  std::vector<float> out(n);
  std::iota(out.begin(), out.end(), first);
  return out;
}

GgufBytes tiny_gguf() {
  GgufBytes f;
  f.text("general.architecture", "llama")
      .u32("llama.block_count", 1)
      .u32("llama.embedding_length", 8);
  f.u32("llama.feed_forward_length", 12)
      .u32("llama.context_length", 32)
      .u32("llama.attention.head_count", 2);
  f.u32("llama.attention.head_count_kv", 1).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  f.f32_tensor("token_embd.weight", {3, 8}, counting(24, 0))
      .f32_tensor("output_norm.weight", {8}, counting(8, 0));
  f.f32_tensor("blk.0.attn_norm.weight", {8}, counting(8, 0))
      .f32_tensor("blk.0.ffn_norm.weight", {8}, counting(8, 0));
  f.f32_tensor("blk.0.attn_q.weight", {8, 8}, counting(64, 0))
      .f32_tensor("blk.0.attn_k.weight", {4, 8}, counting(32, 0));
  f.f32_tensor("blk.0.attn_v.weight", {4, 8}, counting(32, 0))
      .f32_tensor("blk.0.attn_output.weight", {8, 8}, counting(64, 0));
  f.f32_tensor("blk.0.ffn_gate.weight", {12, 8}, counting(96, 0))
      .f32_tensor("blk.0.ffn_up.weight", {12, 8}, counting(96, 0));
  f.f32_tensor("blk.0.ffn_down.weight", {8, 12}, counting(96, 0));
  return f;
}

constexpr const char* kGpt2Config =
    R"({"model_type":"gpt2","n_embd":4,"n_layer":1,"n_head":2,"n_inner":6,)"
    R"("n_positions":5,"vocab_size":3})";

SafetensorsBytes tiny_gpt2(const std::string& prefix) {
  SafetensorsBytes f;
  const auto add = [&](const std::string& name, const std::string& shape, std::size_t n) {
    f.add(prefix + name, "F32", shape, f32_bytes(counting(n, 0)));
  };
  add("wte.weight", "[3,4]", 12);
  add("wpe.weight", "[5,4]", 20);
  for (const char* norm : {"ln_f", "h.0.ln_1", "h.0.ln_2"}) {
    add(std::string(norm) + ".weight", "[4]", 4);
    add(std::string(norm) + ".bias", "[4]", 4);
  }
  add("h.0.attn.c_attn.weight", "[4,12]", 48);
  add("h.0.attn.c_attn.bias", "[12]", 12);
  add("h.0.attn.c_proj.weight", "[4,4]", 16);
  add("h.0.attn.c_proj.bias", "[4]", 4);
  add("h.0.mlp.c_fc.weight", "[4,6]", 24);
  add("h.0.mlp.c_fc.bias", "[6]", 6);
  add("h.0.mlp.c_proj.weight", "[6,4]", 24);
  add("h.0.mlp.c_proj.bias", "[4]", 4);
  return f;
}

std::string message(const Result<ModelFile>& file) {
  return file ? "it opened" : file.error().message;
}

TEST(ModelFile, DeliversLlamaRowsInHalfRotationOrder) {
  TemporaryFolder folder;
  const auto file = ModelFile::open(folder.write("m.gguf", tiny_gguf().build()));
  ASSERT_TRUE(file) << file.error().message;
  const auto q = file.value().tensor(TensorRole::kQ, 0).value();
  EXPECT_EQ(q.shape, (Shape{8, 8}));
  // The file's rows of a head are pairs (0, 2), (1, 3) side by side: 0 -> 0, 1 -> 2, 2 -> 1, 3
  // -> 3.
  const std::vector<std::size_t> stored_row{0, 2, 1, 3, 4, 6, 5, 7};
  for (std::size_t row = 0; row < 8; ++row) {
    for (std::size_t c = 0; c < 8; ++c)
      EXPECT_EQ(q.values[row * 8 + c], static_cast<float>(stored_row[row] * 8 + c));
  }
  EXPECT_EQ(file.value().tensor(TensorRole::kV, 0).value().values, counting(32, 0))
      << "v is not turned";
}

TEST(ModelFile, SplitsAndTransposesGpt2Convolutions) {
  for (const char* prefix : {"", "transformer."}) {
    TemporaryFolder folder;
    folder.write("config.json", kGpt2Config);
    folder.write("model.safetensors", tiny_gpt2(prefix).build());
    const auto file = ModelFile::open(folder.path());
    ASSERT_TRUE(file) << file.error().message;
    const auto k = file.value().tensor(TensorRole::kK, 0).value();
    EXPECT_EQ(k.shape, (Shape{4, 4}));
    for (std::size_t out = 0; out < 4; ++out) {
      for (std::size_t in = 0; in < 4; ++in)
        EXPECT_EQ(k.values[out * 4 + in], static_cast<float>(in * 12 + 4 + out));
    }
    EXPECT_EQ(file.value().tensor(TensorRole::kVBias, 0).value().values, counting(4, 8));
    const auto up = file.value().tensor(TensorRole::kUp, 0).value();
    EXPECT_EQ(up.shape, (Shape{6, 4}));
    EXPECT_EQ(up.values[1], 6.0f);
    EXPECT_EQ(file.value().tensor(TensorRole::kDown, 0).value().shape, (Shape{4, 6}));
  }
}

TEST(ModelFile, SaysWhichTensorsThereAre) {
  TemporaryFolder folder;
  const auto file = ModelFile::open(folder.write("m.gguf", tiny_gguf().build()));
  ASSERT_TRUE(file);
  EXPECT_TRUE(file.value().has(TensorRole::kGate, 0));
  EXPECT_TRUE(file.value().has(TensorRole::kTokenEmbedding, 99)) << "not per layer";
  EXPECT_FALSE(file.value().has(TensorRole::kGate, 1));
  EXPECT_FALSE(file.value().has(TensorRole::kGate, -1));
  EXPECT_FALSE(file.value().has(TensorRole::kOutput, 0)) << "tied";
  EXPECT_FALSE(file.value().has(TensorRole::kQBias, 0));
  const auto absent = file.value().tensor(TensorRole::kUpBias, 0);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(absent.error().message, HasSubstr("expected tensor up_bias of layer 0, found none"));
}

TEST(ModelFile, HasAttentionBiasesAndAnOutputWhereTheFileBringsThem) {
  TemporaryFolder folder;
  auto gguf = tiny_gguf();
  gguf.f32_tensor("output.weight", {3, 8}, counting(24, 5))
      .f32_tensor("blk.0.attn_q.bias", {8}, counting(8, 0));
  const auto file = ModelFile::open(folder.write("m.gguf", gguf.build()));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_FALSE(file.value().config().tied_output);
  EXPECT_EQ(file.value().tensor(TensorRole::kOutput, 0).value().values, counting(24, 5));
  EXPECT_EQ(file.value().tensor(TensorRole::kQBias, 0).value().values,
            (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST(ModelFile, ReadsShardsInNameOrderForItsDigest) {
  TemporaryFolder folder;
  folder.write("config.json", kGpt2Config);
  const auto first = SafetensorsBytes().add("extra", "F32", "[1]", f32_bytes({1})).build();
  const auto second = tiny_gpt2("").build();
  folder.write("model-2.safetensors", second);
  folder.write("model-1.safetensors", first);
  const auto file = ModelFile::open(folder.path());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file.value().digest().value(), sha256(bytes_of(first + second)));
}

TEST(ModelFile, DigestOfAGgufIsThatOfItsBytes) {
  TemporaryFolder folder;
  const auto bytes = tiny_gguf().build();
  const auto file = ModelFile::open(folder.write("m.gguf", bytes));
  EXPECT_EQ(file.value().digest().value(), sha256(bytes_of(bytes)));
  EXPECT_EQ(file.value().digest().value(), sha256(bytes_of(bytes)))
      << "also after its pages were dropped";
}

struct BadModel {
  const char* name;
  ErrorCode code;
  const char* message;
  void (*spoil)(GgufBytes&);
};
class BadModelFile : public testing::TestWithParam<BadModel> {};

TEST_P(BadModelFile, IsRefusedWithItsReason) {
  TemporaryFolder folder;
  auto gguf = tiny_gguf();
  GetParam().spoil(gguf);
  const auto file = ModelFile::open(folder.write("m.gguf", gguf.build()));
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, GetParam().code);
  EXPECT_THAT(file.error().message, HasSubstr(GetParam().message));
  EXPECT_THAT(file.error().message, HasSubstr("m.gguf: "));
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadModelFile,
    testing::Values(
        BadModel{"MissingTensor", ErrorCode::kCorruption,
                 "tensor 'blk.0.ffn_up.weight': expected shape [12, 8], found none",
                 [](GgufBytes& f) { f.find("blk.0.ffn_up.weight").name = "other"; }},
        BadModel{"MissingLayer", ErrorCode::kCorruption,
                 "tensor 'blk.1.attn_norm.weight': expected shape [8], found none",
                 [](GgufBytes& f) { f.u32("llama.block_count", 2); }},
        BadModel{"WrongShape", ErrorCode::kCorruption,
                 "shape of tensor 'blk.0.ffn_down.weight': expected [8, 12], found [12, 8]",
                 [](GgufBytes& f) {
                   f.find("blk.0.ffn_down.weight").dims = {12, 8};
                 }},
        BadModel{"WrongBiasShape", ErrorCode::kCorruption,
                 "shape of tensor 'blk.0.attn_k.bias': expected [4], found [8]",
                 [](GgufBytes& f) { f.f32_tensor("blk.0.attn_k.bias", {8}, counting(8, 0)); }},
        BadModel{"UnknownQuantisation", ErrorCode::kNotSupported, "found ggml type 14",
                 [](GgufBytes& f) { f.find("blk.0.ffn_up.weight").type = 14; }},
        BadModel{"MoreTokensThanRows", ErrorCode::kCorruption,
                 "tokenizer tokens: expected at most the vocabulary 3, found 4",
                 [](GgufBytes& f) {
                   f.text("tokenizer.ggml.model", "gpt2")
                       .texts("tokenizer.ggml.tokens", {"a", "b", "c", "d"})
                       .texts("tokenizer.ggml.merges", {});
                 }}),
    [](const auto& c) { return c.param.name; });

TEST(BadModelFile, OtherFilesAndFoldersAreRefused) {
  TemporaryFolder folder;
  const std::string path = folder.path();
  EXPECT_THAT(message(ModelFile::open(path + "/none.gguf")),
              HasSubstr("none.gguf: expected a readable file"));
  EXPECT_THAT(
      message(ModelFile::open(folder.write("text.gguf", "this is no model at all, but text"))),
      HasSubstr("text.gguf: gguf magic: expected 'GGUF'"));
  EXPECT_THAT(message(ModelFile::open(path)), HasSubstr("config.json: expected a readable file"));
  folder.write("config.json", "{}");
  EXPECT_THAT(message(ModelFile::open(path)),
              HasSubstr("model_type: expected llama or gpt2, found none"));
  folder.write("config.json", kGpt2Config);
  EXPECT_THAT(message(ModelFile::open(path)), HasSubstr("expected *.safetensors, found none"));
  const auto whole = tiny_gpt2("").build();
  folder.write("model.safetensors", whole.substr(0, whole.size() - 1));
  EXPECT_THAT(message(ModelFile::open(path)), HasSubstr("model.safetensors: tensor"));
  folder.write(
      "model.safetensors",
      SafetensorsBytes().add("wte.weight", "I32", "[3,4]", f32_bytes(counting(12, 0))).build());
  EXPECT_THAT(message(ModelFile::open(path)),
              HasSubstr("dtype of tensor 'wte.weight': expected F32, F16 or BF16, found I32"));
  folder.write("model.safetensors", whole);
  EXPECT_EQ(message(ModelFile::open(path)), "it opened");
  folder.write("again.safetensors", whole);
  EXPECT_THAT(message(ModelFile::open(path)), HasSubstr("expected in one shard, found in two"));
}

TEST(BadModelFile, EveryTruncationOfAGgufIsRefused) {
  TemporaryFolder folder;
  const auto bytes = tiny_gguf().build();
  for (std::size_t size = 0; size + 32 < bytes.size(); size += 61) {
    EXPECT_FALSE(ModelFile::open(folder.write("m.gguf", bytes.substr(0, size)))) << size;
  }
}

TEST(ModelFile, WithoutTokenizerOpensButMakesNone) {
  TemporaryFolder folder;
  const auto file = ModelFile::open(folder.write("m.gguf", tiny_gguf().build()));
  const auto tokenizer = Tokenizer::make(file.value().tokenizer());
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kNotFound);
}

TEST(ModelFile, NamesItsRoles) {
  EXPECT_EQ(tensor_role_name(TensorRole::kTokenEmbedding), "token_embedding");
  EXPECT_EQ(tensor_role_name(TensorRole::kAttnNorm), "attn_norm");
  EXPECT_EQ(tensor_role_name(TensorRole::kMlpNormBias), "mlp_norm_bias");
  EXPECT_EQ(tensor_role_name(TensorRole::kDownBias), "down_bias");
  EXPECT_FALSE(is_layer_role(TensorRole::kFinalNormBias));
  EXPECT_TRUE(is_layer_role(TensorRole::kAttnNorm));
}

}  // namespace
}  // namespace memslot
