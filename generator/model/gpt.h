#pragma once
// The frozen GPT: Llama and GPT-2 families behind one forward pass with slots.
//
//   x_0 = embed(tokens) (+ position embedding)
//   for each layer l:  h = x_l + attention(norm(x_l));  x_{l+1} = h + mlp_l(norm(h))
//   hidden = norm(x_L);  logits = hidden W_out^T
//
// At a slot layer, mlp_l is whatever the sequence's SlotForward does; base is base_mlp(l).
//
// Owner:   owns the packed weights; borrows the Backend, which must outlive it.
// Threads: weights are immutable after load; the scratch belongs to the Gpt, so forward calls are
//          one at a time (the generator's compute thread).
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generator/backend/backend.h"
#include "generator/model/config.h"
#include "generator/model/kv_cache.h"
#include "generator/model/model_file.h"
#include "shared/base/digest.h"

namespace memslot {

// One layer's MLP weights. SwiGLU: gate_up is [2F, D] (gate rows first). GELU: gate_up is c_fc [F,
// D].
struct MlpWeights {
  MlpForm form = MlpForm::kSwiGlu;
  std::shared_ptr<const PackedWeight> gate_up;
  std::shared_ptr<const PackedWeight> down;
  Buffer up_bias;    // f32 [F] or empty
  Buffer down_bias;  // f32 [D] or empty
};

struct LayerWeights {
  std::shared_ptr<const PackedWeight> qkv;  // [(H + 2G) d, D]
  std::shared_ptr<const PackedWeight> attn_out;
  Buffer qkv_bias, attn_out_bias;  // f32 or empty
  Buffer attn_norm, attn_norm_bias, mlp_norm, mlp_norm_bias;
  MlpWeights mlp;
};

// What a slot sees: `x` the MLP's input after the norm, `y` what is added to the residual stream.
struct SlotCall {
  std::size_t slot = 0;       // index into GptOptions::slot_layers
  std::int64_t position = 0;  // of the first row
  ConstMatrix x;              // (rows, D), in the activation type of the weights
  Matrix y;                   // (rows, D) f32, to be written
};
using SlotForward = std::function<void(const SlotCall&)>;

// Some new tokens of one sequence.
struct Sequence {
  std::span<const std::int32_t> tokens;
  KvCache* kv = nullptr;
  const SlotForward* slots = nullptr;  // null: base everywhere
  std::vector<std::string> memories;   // for the KV spans; one per slot, "" = base
};

struct GptOptions {
  DType weights = DType::kBF16;    // f32 or bf16
  std::vector<int> slot_layers{};  // ascending, distinct
  std::function<void(int done, int total)> progress{};
};

struct MemoryReport {
  std::size_t weight_bytes = 0;  // packed weights and tables
  std::size_t scratch_bytes = 0;
};

class Gpt {
 public:
  // kMismatch (shapes), kNotSupported (bf16 on a backend without it), kInvalidArgument (slot
  // layers).
  static Result<std::unique_ptr<Gpt>> load(const ModelFile& file, Backend& backend,
                                           GptOptions options);
  ~Gpt();

  const ModelConfig& config() const;
  const GptOptions& options() const;
  Backend& backend() const;
  const LayerWeights& layer(int l) const;
  const PackedWeight& output() const;  // [V, D]; the token embedding too where tied
  const Buffer& final_norm() const;
  const Buffer& final_norm_bias() const;
  MemoryReport memory() const;
  DType activation_dtype() const;  // what slots and linear maps take as x
  Result<KvCache> make_kv(std::int64_t initial_capacity) const;

  // Runs the new tokens of every sequence as one batch (cut into chunks of at most kMaxRows rows)
  // and appends them to their caches. hidden: (all rows, D) f32, after the final norm, or null data
  // if not wanted. With `last_only`, (sequences, D): each sequence's last row. kInvalidArgument: a
  // token id outside the vocabulary, or beyond the context.
  Status forward(std::span<Sequence> batch, Matrix hidden, bool last_only);

  // Recomputes the layers above slot `slot` over all cached positions with the sequence's slots,
  // from the cached residual streams: afterwards the cache is bit-identical to one whose tokens
  // were all read with these memories (row-invariant backends). hidden_last: (1, D) or null data.
  Status recompute(Sequence& sequence, std::size_t slot, Matrix hidden_last);

  // logits = hidden W_out^T: (rows, V) f32.
  void logits(ConstMatrix hidden, Matrix out);

  // The model's own MLP of a layer, with its weights or with others of the same form.
  void mlp(const MlpWeights& weights, ConstMatrix x, Matrix y);
  void norm(ConstMatrix x, const Buffer& weight, const Buffer& bias, Matrix y);

  // SHA-256 over all base tensors as they are now in device memory, in a fixed order ("attest").
  Result<Sha256> attest() const;

  static constexpr std::int64_t kMaxRows = 512;

 private:
  struct Impl;
  explicit Gpt(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
