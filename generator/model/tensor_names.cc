#include "generator/model/tensor_names.h"

#include <algorithm>
#include <array>
#include <utility>

namespace memslot {
namespace {

using Form = TensorSource::Form;

// A name with the layer in place of '#'.
std::string named(std::string_view pattern, int layer) {
  const auto at = pattern.find('#');
  if (at == std::string_view::npos) return std::string(pattern);
  return std::string(pattern.substr(0, at)) + std::to_string(layer) +
         std::string(pattern.substr(at + 1));
}

struct LlamaNames {
  const char* gguf;
  const char* hf;
};

LlamaNames llama_names(TensorRole role) {
  switch (role) {
    case TensorRole::kTokenEmbedding: return {"token_embd.weight", "model.embed_tokens.weight"};
    case TensorRole::kOutput: return {"output.weight", "lm_head.weight"};
    case TensorRole::kFinalNorm: return {"output_norm.weight", "model.norm.weight"};
    case TensorRole::kAttnNorm:
      return {"blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight"};
    case TensorRole::kQ: return {"blk.#.attn_q.weight", "model.layers.#.self_attn.q_proj.weight"};
    case TensorRole::kK: return {"blk.#.attn_k.weight", "model.layers.#.self_attn.k_proj.weight"};
    case TensorRole::kV: return {"blk.#.attn_v.weight", "model.layers.#.self_attn.v_proj.weight"};
    case TensorRole::kQBias: return {"blk.#.attn_q.bias", "model.layers.#.self_attn.q_proj.bias"};
    case TensorRole::kKBias: return {"blk.#.attn_k.bias", "model.layers.#.self_attn.k_proj.bias"};
    case TensorRole::kVBias: return {"blk.#.attn_v.bias", "model.layers.#.self_attn.v_proj.bias"};
    case TensorRole::kAttnOut:
      return {"blk.#.attn_output.weight", "model.layers.#.self_attn.o_proj.weight"};
    case TensorRole::kAttnOutBias:
      return {"blk.#.attn_output.bias", "model.layers.#.self_attn.o_proj.bias"};
    case TensorRole::kMlpNorm:
      return {"blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight"};
    case TensorRole::kGate: return {"blk.#.ffn_gate.weight", "model.layers.#.mlp.gate_proj.weight"};
    case TensorRole::kUp: return {"blk.#.ffn_up.weight", "model.layers.#.mlp.up_proj.weight"};
    case TensorRole::kDown: return {"blk.#.ffn_down.weight", "model.layers.#.mlp.down_proj.weight"};
    case TensorRole::kPositionEmbedding:
    case TensorRole::kFinalNormBias:
    case TensorRole::kAttnNormBias:
    case TensorRole::kMlpNormBias:
    case TensorRole::kUpBias:
    case TensorRole::kDownBias: break;
  }
  return {nullptr, nullptr};
}

Shape llama_shape(const ModelConfig& c, TensorRole role) {
  switch (role) {
    case TensorRole::kTokenEmbedding:
    case TensorRole::kOutput: return {c.vocab, c.d_model};
    case TensorRole::kQ: return {c.q_width(), c.d_model};
    case TensorRole::kK:
    case TensorRole::kV: return {c.kv_width(), c.d_model};
    case TensorRole::kQBias: return {c.q_width()};
    case TensorRole::kKBias:
    case TensorRole::kVBias: return {c.kv_width()};
    case TensorRole::kAttnOut: return {c.d_model, c.q_width()};
    case TensorRole::kGate:
    case TensorRole::kUp: return {c.d_ff, c.d_model};
    case TensorRole::kDown: return {c.d_model, c.d_ff};
    case TensorRole::kFinalNorm:
    case TensorRole::kAttnNorm:
    case TensorRole::kMlpNorm:
    case TensorRole::kAttnOutBias:
    case TensorRole::kPositionEmbedding:
    case TensorRole::kFinalNormBias:
    case TensorRole::kAttnNormBias:
    case TensorRole::kMlpNormBias:
    case TensorRole::kUpBias:
    case TensorRole::kDownBias: break;
  }
  return {c.d_model};
}

bool is_attention_bias(TensorRole role) {
  return role == TensorRole::kQBias || role == TensorRole::kKBias || role == TensorRole::kVBias ||
         role == TensorRole::kAttnOutBias;
}

std::optional<TensorSource> llama_source(FileFormat format, const ModelConfig& c, TensorRole role,
                                         int layer) {
  const auto names = llama_names(role);
  if (names.hf == nullptr || (role == TensorRole::kOutput && c.tied_output)) return std::nullopt;
  TensorSource source;
  source.name = named(format == FileFormat::kGguf ? names.gguf : names.hf, layer);
  source.stored = llama_shape(c, role);
  source.required = !is_attention_bias(role);
  const bool q = role == TensorRole::kQ || role == TensorRole::kQBias;
  const bool k = role == TensorRole::kK || role == TensorRole::kKBias;
  if (format == FileFormat::kGguf && (q || k)) {
    source.form = Form::kInterleavedHeads;
    source.heads = q ? c.heads : c.kv_heads;
  }
  return source;
}

TensorSource gpt2_vector(const char* pattern, int layer, int size, int part = 0, int parts = 1) {
  return {named(pattern, layer), Shape{size * parts}, Form::kAsStored, 0, part, parts};
}

TensorSource gpt2_matrix(const char* pattern, int layer, int in, int out, int part = 0,
                         int parts = 1) {
  return {named(pattern, layer), Shape{in, out * parts}, Form::kTransposed, 0, part, parts};
}

// Without the "transformer." that newer files put in front.
std::optional<TensorSource> gpt2_source(const ModelConfig& c, TensorRole role, int layer) {
  const int d = c.d_model, f = c.d_ff;
  switch (role) {
    case TensorRole::kTokenEmbedding: return TensorSource{"wte.weight", Shape{c.vocab, d}};
    case TensorRole::kPositionEmbedding: return TensorSource{"wpe.weight", Shape{c.context, d}};
    case TensorRole::kOutput:
      if (c.tied_output) return std::nullopt;
      return TensorSource{"lm_head.weight", Shape{c.vocab, d}};
    case TensorRole::kFinalNorm: return gpt2_vector("ln_f.weight", layer, d);
    case TensorRole::kFinalNormBias: return gpt2_vector("ln_f.bias", layer, d);
    case TensorRole::kAttnNorm: return gpt2_vector("h.#.ln_1.weight", layer, d);
    case TensorRole::kAttnNormBias: return gpt2_vector("h.#.ln_1.bias", layer, d);
    case TensorRole::kQ: return gpt2_matrix("h.#.attn.c_attn.weight", layer, d, d, 0, 3);
    case TensorRole::kK: return gpt2_matrix("h.#.attn.c_attn.weight", layer, d, d, 1, 3);
    case TensorRole::kV: return gpt2_matrix("h.#.attn.c_attn.weight", layer, d, d, 2, 3);
    case TensorRole::kQBias: return gpt2_vector("h.#.attn.c_attn.bias", layer, d, 0, 3);
    case TensorRole::kKBias: return gpt2_vector("h.#.attn.c_attn.bias", layer, d, 1, 3);
    case TensorRole::kVBias: return gpt2_vector("h.#.attn.c_attn.bias", layer, d, 2, 3);
    case TensorRole::kAttnOut: return gpt2_matrix("h.#.attn.c_proj.weight", layer, d, d);
    case TensorRole::kAttnOutBias: return gpt2_vector("h.#.attn.c_proj.bias", layer, d);
    case TensorRole::kMlpNorm: return gpt2_vector("h.#.ln_2.weight", layer, d);
    case TensorRole::kMlpNormBias: return gpt2_vector("h.#.ln_2.bias", layer, d);
    case TensorRole::kUp: return gpt2_matrix("h.#.mlp.c_fc.weight", layer, d, f);
    case TensorRole::kUpBias: return gpt2_vector("h.#.mlp.c_fc.bias", layer, f);
    case TensorRole::kDown: return gpt2_matrix("h.#.mlp.c_proj.weight", layer, f, d);
    case TensorRole::kDownBias: return gpt2_vector("h.#.mlp.c_proj.bias", layer, d);
    case TensorRole::kGate: return std::nullopt;
  }
  return std::nullopt;
}

HostTensor half_rotation(int heads, HostTensor stored) {
  const auto rows = static_cast<std::size_t>(stored.shape[0]);
  const std::size_t columns = stored.values.size() / rows, h = static_cast<std::size_t>(heads);
  const std::size_t head_dim = rows / h, half = head_dim / 2;
  HostTensor out{stored.shape, std::vector<float>(stored.values.size())};
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t in_head = row % head_dim, head = row - in_head;
    const std::size_t from = head + 2 * (in_head % half) + in_head / half;
    std::copy_n(stored.values.begin() + static_cast<std::ptrdiff_t>(from * columns), columns,
                out.values.begin() + static_cast<std::ptrdiff_t>(row * columns));
  }
  return out;
}

// Part `part` of `parts` of the last dimension, turned from (in, out) to (out, in).
HostTensor transposed_part(const TensorSource& source, const HostTensor& stored) {
  const auto in = static_cast<std::size_t>(stored.shape[0]),
             joined = static_cast<std::size_t>(stored.shape[1]);
  const std::size_t out_rows = joined / static_cast<std::size_t>(source.parts);
  const std::size_t first = out_rows * static_cast<std::size_t>(source.part);
  HostTensor out{Shape{static_cast<std::int64_t>(out_rows), stored.shape[0]},
                 std::vector<float>(in * out_rows)};
  for (std::size_t i = 0; i < in; ++i) {
    for (std::size_t o = 0; o < out_rows; ++o)
      out.values[o * in + i] = stored.values[i * joined + first + o];
  }
  return out;
}

HostTensor vector_part(const TensorSource& source, HostTensor stored) {
  if (source.parts == 1) return stored;
  const auto size = static_cast<std::ptrdiff_t>(stored.values.size()) / source.parts;
  const auto begin = stored.values.begin() + size * source.part;
  return {Shape{size}, std::vector<float>(begin, begin + size)};
}

}  // namespace

std::string_view tensor_role_name(TensorRole role) {
  static constexpr std::array<std::string_view, kTensorRoles> kNames{"token_embedding",
                                                                     "position_embedding",
                                                                     "output",
                                                                     "final_norm",
                                                                     "final_norm_bias",
                                                                     "attn_norm",
                                                                     "attn_norm_bias",
                                                                     "q",
                                                                     "k",
                                                                     "v",
                                                                     "q_bias",
                                                                     "k_bias",
                                                                     "v_bias",
                                                                     "attn_out",
                                                                     "attn_out_bias",
                                                                     "mlp_norm",
                                                                     "mlp_norm_bias",
                                                                     "gate",
                                                                     "up",
                                                                     "down",
                                                                     "up_bias",
                                                                     "down_bias"};
  return kNames[static_cast<std::size_t>(role)];
}

bool is_layer_role(TensorRole role) { return role >= TensorRole::kAttnNorm; }

std::optional<TensorSource> tensor_source(FileFormat format, const ModelConfig& config,
                                          TensorRole role, int layer) {
  switch (config.family) {
    case ModelConfig::Family::kLlama: return llama_source(format, config, role, layer);
    case ModelConfig::Family::kGpt2: return gpt2_source(config, role, layer);
  }
  return std::nullopt;
}

HostTensor delivered(const TensorSource& source, HostTensor stored) {
  switch (source.form) {
    case Form::kInterleavedHeads: return half_rotation(source.heads, std::move(stored));
    case Form::kTransposed: return transposed_part(source, stored);
    case Form::kAsStored: break;
  }
  return vector_part(source, std::move(stored));
}

}  // namespace memslot
