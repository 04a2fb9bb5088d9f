#pragma once
// A model on disk, whatever its format: sizes, tokenizer, and every weight as dense f32.
//
//   *.gguf   Llama family; GGUF v2 or v3, little-endian; F32, F16, BF16, Q8_0, Q4_0, Q4_1.
//   folder   Llama or GPT-2 family; config.json + *.safetensors (F32, F16, BF16; any number of
//            shards) + vocab.json and merges.txt, or tokenizer.json.
//
// Forms delivered, independent of the file:
//   - every linear weight is (out, in), row-major: y = x W^T (GPT-2's Conv1D is transposed here,
//     its joined c_attn is split into q, k, v);
//   - Llama q and k rows are in half-rotation order: in each head, element i turns with
//     i + head_dim / 2 (GGUF keeps them interleaved: they are put back here).
//
// open() checks magic, version, counts, offsets, and that every tensor of the family is there with
// the shape that the sizes demand; a file that opens has no surprise left but a failing disk.
//
// Owner:    files are memory-mapped read-only for the life of the ModelFile; the pages of a tensor
//           are given back to the system after it was read, so they do not stay resident.
//           A file must not be truncated by others while it is open.
// Threads:  const calls from any thread.
#include <memory>
#include <string>

#include "generator/model/config.h"
#include "generator/model/tokenizer.h"
#include "shared/base/digest.h"
#include "shared/base/error.h"
#include "shared/tensor/tensor.h"

namespace memslot {

// Shapes in the comment; D = d_model, F = d_ff, Q = heads * head_dim, KV = kv_heads * head_dim.
enum class TensorRole {
  kTokenEmbedding,     // (V, D)
  kPositionEmbedding,  // (context, D)  kGpt2
  kOutput,             // (V, D)        only where not tied
  kFinalNorm,          // (D)
  kFinalNormBias,      // (D)           kGpt2
  kAttnNorm,           // (D)
  kAttnNormBias,       // (D)           kGpt2
  kQ,                  // (Q, D)
  kK,                  // (KV, D)
  kV,                  // (KV, D)
  kQBias,              // (Q)           kGpt2; Llama files that have attention biases
  kKBias,              // (KV)          "
  kVBias,              // (KV)          "
  kAttnOut,            // (D, Q)
  kAttnOutBias,        // (D)           "
  kMlpNorm,            // (D)
  kMlpNormBias,        // (D)           kGpt2
  kGate,               // (F, D)        kLlama
  kUp,                 // (F, D)        kGpt2: c_fc
  kDown,               // (D, F)        kGpt2: c_proj
  kUpBias,             // (F)           kGpt2
  kDownBias,           // (D)           kGpt2
};
inline constexpr int kTensorRoles = 22;

std::string_view tensor_role_name(TensorRole role);  // "token_embedding", "attn_norm", ...
bool is_layer_role(TensorRole role);                 // false: one per model, `layer` is ignored

class ModelFile {
 public:
  // kNotFound: no such file, no safetensors in the folder, no config.json.
  // kCorruption: wrong magic, truncated, offsets outside the file, a missing tensor, a shape that
  // does not fit. kNotSupported: another architecture, GGUF version, quantisation or variant.
  static Result<ModelFile> open(const std::string& path);

  ModelFile(ModelFile&&) noexcept;
  ModelFile& operator=(ModelFile&&) noexcept;
  ~ModelFile();

  const std::string& path() const;
  const ModelConfig& config() const;
  // Empty (no tokens) where the file brings none; Tokenizer::make then answers kNotFound.
  const TokenizerSpec& tokenizer() const;

  // SHA-256 of the model file, or of a folder's safetensors joined in name order. Reads everything.
  Result<Sha256> digest() const;

  // Whether the file has this tensor. `layer` is ignored for roles that are not per layer.
  bool has(TensorRole role, int layer) const;
  // The dense f32 tensor; the caller owns it. kNotFound where !has(role, layer).
  Result<HostTensor> tensor(TensorRole role, int layer) const;

 private:
  struct Impl;
  explicit ModelFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
