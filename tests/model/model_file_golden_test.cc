// Weights as delivered, against models that other implementations wrote and ran.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "generator/model/model_file.h"
#include "tests/support/fixture.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/model_path.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using testing_support::expect_close;
using testing_support::Fixture;
using testing_support::fixtures_matching;
using testing_support::GgufBytes;

std::string model_folder(const Fixture& fixture) {
  return testing_support::fixture_dir() + "/" + fixture.meta("model_folder");
}

// hidden_embed is what the reference feeds to its first layer.
void expect_embedding(const std::string& path) {
  SCOPED_TRACE(path);
  const auto fixture = Fixture::open(path);
  const auto model = ModelFile::open(model_folder(fixture));
  ASSERT_TRUE(model) << model.error().message;
  const auto& config = model.value().config();
  const auto table = model.value().tensor(TensorRole::kTokenEmbedding, 0).value();
  const auto positions = model.value().tensor(TensorRole::kPositionEmbedding, 0);
  const auto want = fixture.tensor("hidden_embed");
  const auto ids = fixture.ids("ids");
  const auto d = static_cast<std::size_t>(config.d_model);
  ASSERT_EQ(want.shape, (Shape{static_cast<std::int64_t>(ids.size()), config.d_model}));
  std::vector<float> got;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    for (std::size_t c = 0; c < d; ++c) {
      got.push_back(table.values[static_cast<std::size_t>(ids[t]) * d + c] +
                    (positions ? positions.value().values[t * d + c] : 0));
    }
  }
  expect_close(got, want.values, fixture.tol_abs(), fixture.tol_rel(), "hidden_embed");
  EXPECT_EQ(config.family == ModelConfig::Family::kGpt2, static_cast<bool>(positions));
}

// y = W x, row by row in f64.
std::vector<float> times(const HostTensor& w, std::span<const float> x,
                         const std::vector<float>& bias) {
  std::vector<float> y;
  for (std::size_t row = 0; row < static_cast<std::size_t>(w.shape[0]); ++row) {
    double sum = bias.empty() ? 0 : double{bias[row]};
    for (std::size_t c = 0; c < x.size(); ++c)
      sum += double{w.values[row * x.size() + c]} * double{x[c]};
    y.push_back(static_cast<float>(sum));
  }
  return y;
}

std::vector<float> bias_or_none(const ModelFile& model, TensorRole role, int layer) {
  return model.has(role, layer) ? model.tensor(role, layer).value().values : std::vector<float>{};
}

// Layer 2's MLP of the reference, from its input to its output, with the weights as delivered.
void expect_mlp(const std::string& path) {
  SCOPED_TRACE(path);
  const auto fixture = Fixture::open(path);
  const auto model = std::move(ModelFile::open(model_folder(fixture)).value());
  const int layer = 2;
  const auto x = fixture.tensor("layer2_mlp_input"), want = fixture.tensor("layer2_mlp_output");
  const auto up = model.tensor(TensorRole::kUp, layer).value(),
             down = model.tensor(TensorRole::kDown, layer).value();
  const auto up_bias = bias_or_none(model, TensorRole::kUpBias, layer),
             down_bias = bias_or_none(model, TensorRole::kDownBias, layer);
  const auto d = static_cast<std::size_t>(model.config().d_model);
  std::vector<float> got;
  for (std::size_t t = 0; t < static_cast<std::size_t>(x.shape[0]); ++t) {
    const std::span row(x.values.data() + t * d, d);
    auto h = times(up, row, up_bias);
    if (model.config().mlp_form == MlpForm::kSwiGlu) {
      const auto gate = times(model.tensor(TensorRole::kGate, layer).value(), row, {});
      for (std::size_t i = 0; i < h.size(); ++i) h[i] *= gate[i] / (1 + std::exp(-gate[i]));
    } else {
      for (auto& v : h) v = 0.5f * v * (1 + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v)));
    }
    const auto y = times(down, h, down_bias);
    got.insert(got.end(), y.begin(), y.end());
  }
  expect_close(got, want.values, fixture.tol_abs(), fixture.tol_rel(), "layer2_mlp_output");
}

TEST(ModelFileGolden, TinyLlamaEmbeddingsAndMlpAreTheReferences) {
  const auto paths = fixtures_matching("llama_tiny_*.safetensors");
  ASSERT_FALSE(paths.empty());
  for (const auto& path : paths) {
    expect_embedding(path);
    expect_mlp(path);
  }
}

TEST(ModelFileGolden, TinyGpt2EmbeddingsAndMlpAreTheReferences) {
  const auto paths = fixtures_matching("gpt2_tiny*.safetensors");
  ASSERT_FALSE(paths.empty());
  for (const auto& path : paths) {
    expect_embedding(path);
    expect_mlp(path);
  }
}

// As the converter writes q and k: row i of a head's first half beside row i of its second.
std::vector<float> interleaved(const HostTensor& w, int heads) {
  const auto rows = static_cast<std::size_t>(w.shape[0]),
             columns = static_cast<std::size_t>(w.shape[1]);
  const std::size_t head_dim = rows / static_cast<std::size_t>(heads);
  std::vector<float> out;
  for (std::size_t head = 0; head < rows; head += head_dim) {
    for (std::size_t i = 0; i < head_dim / 2; ++i) {
      for (const std::size_t row : {head + i, head + head_dim / 2 + i}) {
        out.insert(out.end(), w.values.begin() + static_cast<std::ptrdiff_t>(row * columns),
                   w.values.begin() + static_cast<std::ptrdiff_t>((row + 1) * columns));
      }
    }
  }
  return out;
}

GgufBytes as_gguf(const ModelFile& model) {
  const auto& c = model.config();
  const auto u = [](int v) { return static_cast<std::uint32_t>(v); };
  GgufBytes f;
  f.text("general.architecture", "llama")
      .u32("llama.block_count", u(c.layers))
      .u32("llama.embedding_length", u(c.d_model));
  f.u32("llama.feed_forward_length", u(c.d_ff)).u32("llama.context_length", u(c.context));
  f.u32("llama.attention.head_count", u(c.heads))
      .u32("llama.attention.head_count_kv", u(c.kv_heads));
  f.f32("llama.attention.layer_norm_rms_epsilon", c.norm_eps)
      .f32("llama.rope.freq_base", c.rope_theta);
  f.u32("llama.attention.key_length", u(c.head_dim))
      .u32("llama.attention.value_length", u(c.head_dim));
  const auto add = [&](const std::string& name, TensorRole role, int layer, int heads = 0) {
    const auto w = model.tensor(role, layer).value();
    std::vector<std::uint64_t> dims;
    for (int i = 0; i < w.shape.rank(); ++i) dims.push_back(static_cast<std::uint64_t>(w.shape[i]));
    f.f32_tensor(name + ".weight", dims, heads == 0 ? w.values : interleaved(w, heads));
  };
  add("token_embd", TensorRole::kTokenEmbedding, 0);
  add("output_norm", TensorRole::kFinalNorm, 0);
  if (!c.tied_output) add("output", TensorRole::kOutput, 0);
  for (int l = 0; l < c.layers; ++l) {
    const std::string block = "blk." + std::to_string(l) + ".";
    add(block + "attn_norm", TensorRole::kAttnNorm, l);
    add(block + "attn_q", TensorRole::kQ, l, c.heads);
    add(block + "attn_k", TensorRole::kK, l, c.kv_heads);
    add(block + "attn_v", TensorRole::kV, l);
    add(block + "attn_output", TensorRole::kAttnOut, l);
    add(block + "ffn_norm", TensorRole::kMlpNorm, l);
    add(block + "ffn_gate", TensorRole::kGate, l);
    add(block + "ffn_up", TensorRole::kUp, l);
    add(block + "ffn_down", TensorRole::kDown, l);
  }
  return f;
}

TEST(ModelFileGolden, BothFormatsOfOneModelDeliverTheSameTensors) {
  const auto paths = fixtures_matching("llama_tiny_*_hf");
  ASSERT_FALSE(paths.empty());
  testing_support::TemporaryFolder folder;
  for (const auto& path : paths) {
    const auto hf = std::move(ModelFile::open(path).value());
    const auto gguf = ModelFile::open(folder.write("m.gguf", as_gguf(hf).build()));
    ASSERT_TRUE(gguf) << gguf.error().message;
    for (int r = 0; r < kTensorRoles; ++r) {
      const auto role = static_cast<TensorRole>(r);
      for (int l = 0; l < hf.config().layers; ++l) {
        ASSERT_EQ(hf.has(role, l), gguf.value().has(role, l)) << tensor_role_name(role);
        if (!hf.has(role, l)) continue;
        EXPECT_EQ(hf.tensor(role, l).value().values, gguf.value().tensor(role, l).value().values)
            << tensor_role_name(role);
      }
    }
  }
}

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

TEST(ModelFileGolden, TheDefaultModelDoesNotStayResidentAfterItWasRead) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const auto model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().message;
  const std::size_t before = resident_bytes();
  for (int r = 0; r < kTensorRoles; ++r) {
    const auto role = static_cast<TensorRole>(r);
    for (int l = 0; l < (is_layer_role(role) ? model.value().config().layers : 1); ++l) {
      if (!model.value().has(role, l)) continue;
      ASSERT_TRUE(model.value().tensor(role, l));
    }
  }
  ASSERT_TRUE(model.value().digest());
  const std::size_t after = resident_bytes();
  EXPECT_LT(after, before + (16U << 20)) << "the file has 98 MB";
}

TEST(ModelFileGolden, TheDefaultModelsTokenizerReturnsTheFixturesIds) {
  MEMSLOT_MODEL_OR_SKIP(path);
  const auto model = ModelFile::open(path);
  ASSERT_TRUE(model) << model.error().message;
  const auto tokenizer = std::move(Tokenizer::make(model.value().tokenizer()).value());
  const auto paths = fixtures_matching("smollm2_text*.safetensors");
  ASSERT_FALSE(paths.empty());
  for (const auto& file : paths) {
    const auto fixture = Fixture::open(file);
    const auto want = fixture.ids("ids");
    auto got = tokenizer.encode(fixture.meta("text")).value();
    ASSERT_GE(got.size(), want.size()) << file;
    got.resize(want.size());  // the fixture holds the text's first ids
    EXPECT_EQ(std::vector<std::int64_t>(got.begin(), got.end()), want) << file;
  }
}

}  // namespace
}  // namespace memslot
