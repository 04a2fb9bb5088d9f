#pragma once
// The sizes and constants of a GPT, read from a GGUF header or a config.json.
//
// Letters as everywhere: L layers, D model width, F MLP width, H heads, V vocabulary.
//
// Limits:   1 <= layers <= 1024; 1 <= every width <= 2^20; vocab <= 2^22; context <= 2^24;
//           kv_heads divides heads; head_dim is even for kLlama (rotation pairs); for kGpt2
//           heads * head_dim == d_model and kv_heads == heads.
// Threads:  a value; share freely.
#include <string>

#include "shared/base/error.h"
#include "shared/memory/signature.h"

namespace memslot {

struct ModelConfig {
  enum class Family {
    kLlama,  // RMSNorm, rotary positions (half rotation), grouped-query attention, SwiGLU
    kGpt2,   // LayerNorm, learned positions, GELU (tanh form), biases everywhere
  };

  Family family = Family::kLlama;
  int layers = 0;               // L
  int d_model = 0;              // D
  int d_ff = 0;                 // F
  int heads = 0;                // H, query heads
  int kv_heads = 0;             // key/value heads; each serves heads / kv_heads query heads
  int head_dim = 0;             // columns per head
  int vocab = 0;                // V
  int context = 0;              // tokens
  float norm_eps = 1e-5f;       // added to the variance (LayerNorm) or mean square (RMSNorm)
  float rope_theta = 10000.0f;  // rotary base; kLlama only
  bool tied_output = true;      // logits use the token embedding
  MlpForm mlp_form = MlpForm::kSwiGlu;
  int bos = -1;  // token ids, -1 if the file names none
  int eos = -1;
  std::string name;  // for people

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  // Columns that an MLP's first map gives: gate and up, or up alone.
  int mlp_width() const { return mlp_form == MlpForm::kSwiGlu ? 2 * d_ff : d_ff; }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// ok, or kCorruption naming the first field out of the limits above.
Status check_config(const ModelConfig& config);

}  // namespace memslot
