#include "generator/model/config.h"

namespace memslot {
namespace {

constexpr int kMaxLayers = 1024;
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxVocab = 1 << 22;
constexpr int kMaxContext = 1 << 24;

Status in_range(std::string_view what, int value, int most) {
  if (value < 1 || value > most) return corrupt(what, "1 to " + std::to_string(most), value);
  return ok();
}

Status check_heads(const ModelConfig& c) {
  if (c.heads % c.kv_heads != 0)
    return corrupt("kv_heads", "a divisor of heads " + std::to_string(c.heads), c.kv_heads);
  if (c.family == ModelConfig::Family::kLlama) {
    if (c.head_dim % 2 != 0) return corrupt("head_dim", "an even number", c.head_dim);
    return ok();
  }
  if (c.kv_heads != c.heads) return corrupt("kv_heads", c.heads, c.kv_heads);
  if (c.q_width() != c.d_model) return corrupt("heads * head_dim", c.d_model, c.q_width());
  return ok();
}

}  // namespace

Status check_config(const ModelConfig& c) {
  MEMSLOT_TRY(in_range("layers", c.layers, kMaxLayers));
  MEMSLOT_TRY(in_range("d_model", c.d_model, kMaxWidth));
  MEMSLOT_TRY(in_range("d_ff", c.d_ff, kMaxWidth));
  MEMSLOT_TRY(in_range("heads", c.heads, kMaxWidth));
  MEMSLOT_TRY(in_range("kv_heads", c.kv_heads, kMaxWidth));
  MEMSLOT_TRY(in_range("head_dim", c.head_dim, kMaxWidth));
  if (c.heads > kMaxWidth / c.head_dim) return corrupt("heads * head_dim", "at most 2^20", "more");
  MEMSLOT_TRY(in_range("vocab", c.vocab, kMaxVocab));
  MEMSLOT_TRY(in_range("context", c.context, kMaxContext));
  MEMSLOT_TRY(check_heads(c));
  if (!(c.norm_eps > 0.0f && c.norm_eps < 1.0f))
    return corrupt("norm_eps", "between 0 and 1", c.norm_eps);
  if (!(c.rope_theta > 1.0f && c.rope_theta < 1e12f))
    return corrupt("rope_theta", "between 1 and 1e12", c.rope_theta);
  if (c.bos < -1 || c.bos >= c.vocab)
    return corrupt("bos id", "-1 to " + std::to_string(c.vocab - 1), c.bos);
  if (c.eos < -1 || c.eos >= c.vocab)
    return corrupt("eos id", "-1 to " + std::to_string(c.vocab - 1), c.eos);
  return ok();
}

}  // namespace memslot
