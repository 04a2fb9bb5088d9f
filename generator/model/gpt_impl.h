#pragma once
// What a Gpt holds; shared by gpt.cc (interface), gpt_weights.cc (loading) and gpt_forward.cc.
#include <memory>
#include <span>
#include <vector>

#include "generator/model/gpt.h"

namespace memslot {

// Everything that attest() covers, and nothing else that is large.
struct GptWeights {
  std::shared_ptr<const PackedWeight> embedding;  // [V, D]; the same object as output where tied
  std::shared_ptr<const PackedWeight> positions;  // [context, D], kGpt2
  std::shared_ptr<const PackedWeight> output;     // [V, D]
  Buffer final_norm, final_norm_bias;             // f32 [D]
  std::vector<LayerWeights> layers;
};

// kMismatch, kNotSupported, kNoSpace; what ModelFile::tensor() answers.
Result<GptWeights> load_weights(const ModelFile& file, Backend& backend, const GptOptions& options);

// Calls fn(data, bytes) for every base tensor, in the order that attest() documents.
template <class Fn>
void for_each_tensor(const GptWeights& weights, Fn&& fn);

// Rows of one chunk, reused by every call.
struct GptScratch {
  Buffer storage;
  Matrix residual;       // f32 [kMaxRows, D]
  Matrix normed;         // activations [kMaxRows, D]
  Matrix qkv;            // f32 [kMaxRows, (H + 2G) d]
  Matrix attended;       // activations [kMaxRows, H d]
  Matrix up;             // f32 [kMaxRows, 2F or F]
  Matrix gated;          // activations [kMaxRows, F]
  Matrix slot_out;       // f32 [kMaxRows, D]
  Matrix last;           // f32 [kMaxRows, D]: the rows that the top layer goes on with
  Matrix last_attended;  // activations [kMaxRows, H d]
};

// Some rows of one sequence inside a chunk.
struct ChunkPart {
  Sequence* sequence = nullptr;
  std::int64_t row = 0;  // in the chunk
  std::int64_t count = 0;
  std::int64_t position = 0;  // of the first row
  std::int64_t offset = 0;    // of the first row in the sequence's new tokens
  std::int64_t out_row =
      -1;  // with last_only: the row of `hidden` that its last row goes to, or -1
};

struct Gpt::Impl {
  Backend* backend = nullptr;
  ModelConfig config;
  GptOptions options;
  GptWeights weights;
  GptScratch scratch;

  bool is_llama() const { return config.family == ModelConfig::Family::kLlama; }
  DType activation() const { return options.weights; }
  AttentionShape attention_shape() const {
    return {config.heads, config.kv_heads, config.head_dim};
  }
  // The slot at this layer, or -1.
  int slot_at(int layer) const;

  Status make_scratch();
  Status check(std::span<Sequence> batch) const;
  void norm(ConstMatrix x, const Buffer& weight, const Buffer& bias, Matrix y);
  void mlp(const MlpWeights& weights, ConstMatrix x, Matrix y, bool accumulate);

  // Cuts a batch into chunks of at most kMaxRows rows.
  std::vector<std::vector<ChunkPart>> cut(std::span<Sequence> batch, bool last_only) const;
  void embed(std::span<const ChunkPart> parts);
  // Runs layers [first, L) over the chunk whose residual stream is in scratch.residual; `from_mlp`
  // starts behind the first one's attention. `hidden` (may be null) is the call's, `first_row` this
  // chunk's first row in it unless last_only.
  void run(std::span<const ChunkPart> parts, int first, bool from_mlp, bool last_only,
           Matrix hidden, std::int64_t first_row);
  void attend(int layer, std::span<const ChunkPart> parts, std::int64_t rows, bool last_rows);
  void feed_forward(int layer, std::span<const ChunkPart> parts, std::int64_t rows);
  void run_slot(std::size_t slot, int layer, std::span<const ChunkPart> parts, std::int64_t rows);
  std::int64_t gather_last(std::span<const ChunkPart> parts, Matrix from, Matrix to);
};

template <class Fn>
void for_each_tensor(const GptWeights& weights, Fn&& fn) {
  const auto packed = [&fn](const std::shared_ptr<const PackedWeight>& w) {
    if (w != nullptr) fn(w->data(), w->bytes());
  };
  const auto plain = [&fn](const Buffer& b) {
    if (b) fn(b.data(), b.bytes());
  };
  packed(weights.embedding);
  packed(weights.positions);
  if (weights.output != weights.embedding) packed(weights.output);
  plain(weights.final_norm), plain(weights.final_norm_bias);
  for (const auto& layer : weights.layers) {
    plain(layer.attn_norm), plain(layer.attn_norm_bias);
    packed(layer.qkv), plain(layer.qkv_bias);
    packed(layer.attn_out), plain(layer.attn_out_bias);
    plain(layer.mlp_norm), plain(layer.mlp_norm_bias);
    packed(layer.mlp.gate_up), plain(layer.mlp.up_bias);
    packed(layer.mlp.down), plain(layer.mlp.down_bias);
  }
}

}  // namespace memslot
