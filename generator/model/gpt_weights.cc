// Loading: one tensor at a time from the file, dense f32, packed, and dropped, so that at no time
// more than the largest tensor lies beside the packed weights.
#include <malloc.h>

#include <algorithm>
#include <initializer_list>

#include "generator/model/gpt_impl.h"

namespace memslot {
namespace {

using Packed = std::shared_ptr<const PackedWeight>;

class Loader {
 public:
  Loader(const ModelFile& file, Backend& backend, DType dtype)
      : file_(file), backend_(backend), dtype_(dtype) {}

  // The rows of several tensors under each other, as one map.
  Result<Packed> map(std::initializer_list<TensorRole> roles, int layer, std::int64_t rows,
                     std::int64_t cols) {
    if (roles.size() == 1) {
      MEMSLOT_TRY(const auto tensor, checked(*roles.begin(), layer, Shape{rows, cols}));
      return backend_.pack(tensor.view(), dtype_, Transpose::kNo);
    }
    HostTensor joined{Shape{rows, cols}, {}};
    joined.values.reserve(static_cast<std::size_t>(rows * cols));
    for (const auto role : roles) {
      MEMSLOT_TRY(const auto tensor, file_.tensor(role, layer));
      joined.values.insert(joined.values.end(), tensor.values.begin(), tensor.values.end());
    }
    MEMSLOT_TRY(check_size(joined.values.size(), rows * cols, *roles.begin()));
    return backend_.pack(joined.view(), dtype_, Transpose::kNo);
  }

  // Vectors one after the other, f32; empty if the file has none of them.
  Result<Buffer> vector(std::initializer_list<TensorRole> roles, int layer, std::int64_t size) {
    std::vector<float> values;
    for (const auto role : roles) {
      if (!file_.has(role, layer)) return Buffer();
      MEMSLOT_TRY(const auto tensor, file_.tensor(role, layer));
      values.insert(values.end(), tensor.values.begin(), tensor.values.end());
    }
    MEMSLOT_TRY(check_size(values.size(), size, *roles.begin()));
    const auto bytes = std::as_bytes(std::span(values));
    MEMSLOT_TRY(auto buffer, backend_.alloc(bytes.size()));
    MEMSLOT_TRY(backend_.upload(buffer.data(), bytes));
    return buffer;
  }

 private:
  Result<HostTensor> checked(TensorRole role, int layer, const Shape& shape) {
    MEMSLOT_TRY(auto tensor, file_.tensor(role, layer));
    if (tensor.shape == shape) return tensor;
    return mismatch(tensor_role_name(role), shape.text(), tensor.shape.text());
  }
  static Status check_size(std::size_t found, std::int64_t expected, TensorRole role) {
    if (static_cast<std::int64_t>(found) == expected) return ok();
    return mismatch(std::string(tensor_role_name(role)) + " elements", expected, found);
  }

  const ModelFile& file_;
  Backend& backend_;
  DType dtype_;
};

Result<LayerWeights> load_layer(Loader& loader, const ModelConfig& c, int l) {
  using Role = TensorRole;
  const std::int64_t d = c.d_model, f = c.d_ff, q = c.q_width(), kv = c.kv_width();
  LayerWeights out;
  MEMSLOT_TRY(out.qkv, loader.map({Role::kQ, Role::kK, Role::kV}, l, q + 2 * kv, d));
  MEMSLOT_TRY(out.qkv_bias,
              loader.vector({Role::kQBias, Role::kKBias, Role::kVBias}, l, q + 2 * kv));
  MEMSLOT_TRY(out.attn_out, loader.map({Role::kAttnOut}, l, d, q));
  MEMSLOT_TRY(out.attn_out_bias, loader.vector({Role::kAttnOutBias}, l, d));
  MEMSLOT_TRY(out.attn_norm, loader.vector({Role::kAttnNorm}, l, d));
  MEMSLOT_TRY(out.attn_norm_bias, loader.vector({Role::kAttnNormBias}, l, d));
  MEMSLOT_TRY(out.mlp_norm, loader.vector({Role::kMlpNorm}, l, d));
  MEMSLOT_TRY(out.mlp_norm_bias, loader.vector({Role::kMlpNormBias}, l, d));
  out.mlp.form = c.mlp_form;
  if (c.mlp_form == MlpForm::kSwiGlu) {
    MEMSLOT_TRY(out.mlp.gate_up, loader.map({Role::kGate, Role::kUp}, l, 2 * f, d));
  } else {
    MEMSLOT_TRY(out.mlp.gate_up, loader.map({Role::kUp}, l, f, d));
  }
  MEMSLOT_TRY(out.mlp.up_bias, loader.vector({Role::kUpBias}, l, f));
  MEMSLOT_TRY(out.mlp.down, loader.map({Role::kDown}, l, d, f));
  MEMSLOT_TRY(out.mlp.down_bias, loader.vector({Role::kDownBias}, l, d));
  return out;
}

}  // namespace

Result<GptWeights> load_weights(const ModelFile& file, Backend& backend,
                                const GptOptions& options) {
  using Role = TensorRole;
  const ModelConfig& c = file.config();
  Loader loader(file, backend, options.weights);
  const auto report = [&](int done) {
    if (options.progress) options.progress(done, c.layers + 1);
  };
  GptWeights out;
  // The largest tensor first, while nothing else is held.
  MEMSLOT_TRY(out.embedding, loader.map({Role::kTokenEmbedding}, 0, c.vocab, c.d_model));
  out.output = out.embedding;
  if (!c.tied_output) {
    MEMSLOT_TRY(out.output, loader.map({Role::kOutput}, 0, c.vocab, c.d_model));
  }
  if (c.family == ModelConfig::Family::kGpt2) {
    MEMSLOT_TRY(out.positions, loader.map({Role::kPositionEmbedding}, 0, c.context, c.d_model));
  }
  MEMSLOT_TRY(out.final_norm, loader.vector({Role::kFinalNorm}, 0, c.d_model));
  MEMSLOT_TRY(out.final_norm_bias, loader.vector({Role::kFinalNormBias}, 0, c.d_model));
  report(1);
  for (int l = 0; l < c.layers; ++l) {
    MEMSLOT_TRY(auto layer, load_layer(loader, c, l));
    out.layers.push_back(std::move(layer));
    report(l + 2);
  }
  malloc_trim(0);  // the dense tensors' pages go back to the system
  return out;
}

}  // namespace memslot
