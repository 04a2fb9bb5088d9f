#include "generator/model/gguf_config.h"

namespace memslot {
namespace {

Error unsupported(const std::string& key, const std::string& expected, const std::string& found) {
  return {ErrorCode::kNotSupported,
          "gguf key '" + key + "': expected " + expected + ", found " + found};
}

Result<int> small(const GgufIndex& index, const std::string& key) {
  MEMSLOT_TRY(const auto value, index.integer(key));
  if (value < INT32_MIN || value > INT32_MAX)
    return corrupt("gguf key '" + key + "'", "a 32-bit integer", value);
  return static_cast<int>(value);
}

Result<int> small_or(const GgufIndex& index, const std::string& key, int otherwise) {
  if (!index.metadata.contains(key)) return otherwise;
  return small(index, key);
}

// The keys that change the equations must be absent or neutral.
Status refuse_variants(const GgufIndex& index, int head_dim) {
  MEMSLOT_TRY(const auto experts, small_or(index, "llama.expert_count", 0));
  if (experts != 0) return unsupported("llama.expert_count", "0", std::to_string(experts));
  MEMSLOT_TRY(const auto rotated, small_or(index, "llama.rope.dimension_count", head_dim));
  if (rotated != head_dim)
    return unsupported("llama.rope.dimension_count", std::to_string(head_dim),
                       std::to_string(rotated));
  MEMSLOT_TRY(const auto value_length, small_or(index, "llama.attention.value_length", head_dim));
  if (value_length != head_dim)
    return unsupported("llama.attention.value_length", std::to_string(head_dim),
                       std::to_string(value_length));
  const auto* scaling = index.find<std::string>("llama.rope.scaling.type");
  if (scaling != nullptr && *scaling != "none")
    return unsupported("llama.rope.scaling.type", "none", *scaling);
  if (index.tensors.contains("rope_freqs.weight"))
    return Error{ErrorCode::kNotSupported,
                 "gguf: expected plain rope, found tensor 'rope_freqs.weight'"};
  return ok();
}

Result<int> vocabulary(const GgufIndex& index) {
  if (index.metadata.contains("llama.vocab_size")) return small(index, "llama.vocab_size");
  const auto it = index.tensors.find("token_embd.weight");
  if (it == index.tensors.end()) return corrupt("tensor 'token_embd.weight'", "one", "none");
  const auto rows = it->second.shape[0];
  return rows <= INT32_MAX ? static_cast<int>(rows) : -1;  // check_config() refuses -1
}

Status read_special_ids(const GgufIndex& index, TokenizerSpec& spec) {
  MEMSLOT_TRY(spec.bos, small_or(index, "tokenizer.ggml.bos_token_id", -1));
  MEMSLOT_TRY(spec.eos, small_or(index, "tokenizer.ggml.eos_token_id", -1));
  if (const auto* add = index.find<bool>("tokenizer.ggml.add_bos_token")) spec.add_bos = *add;
  if (const auto* chat = index.find<std::string>("tokenizer.chat_template")) {
    spec.chat_template = *chat;
  }
  return ok();
}

Status read_pre(const GgufIndex& index, TokenizerSpec& spec) {
  MEMSLOT_TRY(const auto model, index.text("tokenizer.ggml.model"));
  if (model != "gpt2") return unsupported("tokenizer.ggml.model", "gpt2", model);
  const auto* pre = index.find<std::string>("tokenizer.ggml.pre");
  if (pre == nullptr || *pre == "gpt-2" || *pre == "default") {
    spec.pre = PreTokenizer::kGpt2;
  } else if (*pre == "smollm") {
    spec.pre = PreTokenizer::kSmolLm;
  } else {
    return unsupported("tokenizer.ggml.pre", "smollm, gpt-2 or default", *pre);
  }
  const auto* space = index.find<bool>("tokenizer.ggml.add_space_prefix");
  if (space != nullptr && *space)
    return unsupported("tokenizer.ggml.add_space_prefix", "false", "true");
  return ok();
}

}  // namespace

Result<ModelConfig> config_from_gguf(const GgufIndex& index) {
  MEMSLOT_TRY(const auto architecture, index.text("general.architecture"));
  if (architecture != "llama") return unsupported("general.architecture", "llama", architecture);
  ModelConfig c;
  MEMSLOT_TRY(c.layers, small(index, "llama.block_count"));
  MEMSLOT_TRY(c.d_model, small(index, "llama.embedding_length"));
  MEMSLOT_TRY(c.d_ff, small(index, "llama.feed_forward_length"));
  MEMSLOT_TRY(c.heads, small(index, "llama.attention.head_count"));
  MEMSLOT_TRY(c.kv_heads, small_or(index, "llama.attention.head_count_kv", c.heads));
  if (c.heads < 1) return corrupt("gguf key 'llama.attention.head_count'", "1 or more", c.heads);
  MEMSLOT_TRY(c.head_dim, small_or(index, "llama.attention.key_length", c.d_model / c.heads));
  MEMSLOT_TRY(c.vocab, vocabulary(index));
  MEMSLOT_TRY(c.context, small(index, "llama.context_length"));
  MEMSLOT_TRY(const auto eps, index.real("llama.attention.layer_norm_rms_epsilon"));
  c.norm_eps = static_cast<float>(eps);
  if (const auto* theta = index.find<double>("llama.rope.freq_base"))
    c.rope_theta = static_cast<float>(*theta);
  c.tied_output = !index.tensors.contains("output.weight");
  MEMSLOT_TRY(c.bos, small_or(index, "tokenizer.ggml.bos_token_id", -1));
  MEMSLOT_TRY(c.eos, small_or(index, "tokenizer.ggml.eos_token_id", -1));
  if (const auto* name = index.find<std::string>("general.name")) c.name = *name;
  MEMSLOT_TRY(refuse_variants(index, c.head_dim));
  MEMSLOT_TRY(check_config(c));
  return c;
}

Result<TokenizerSpec> tokenizer_from_gguf(const GgufIndex& index) {
  TokenizerSpec spec;
  const auto* tokens = index.find<std::vector<std::string>>("tokenizer.ggml.tokens");
  if (tokens == nullptr) return spec;
  MEMSLOT_TRY(read_pre(index, spec));
  MEMSLOT_TRY(read_special_ids(index, spec));
  spec.tokens = *tokens;
  spec.types.assign(tokens->size(), TokenType::kNormal);
  if (const auto* types = index.find<std::vector<std::int64_t>>("tokenizer.ggml.token_type")) {
    if (types->size() != tokens->size())
      return corrupt("token types", tokens->size(), types->size());
    for (std::size_t i = 0; i < types->size(); ++i) {
      const auto type = (*types)[i];
      if (type < 1 || type > 6)
        return corrupt("type of token " + std::to_string(i), "1 to 6", type);
      spec.types[i] = static_cast<TokenType>(type);
    }
  }
  const auto* merges = index.find<std::vector<std::string>>("tokenizer.ggml.merges");
  if (merges == nullptr)
    return corrupt("gguf key 'tokenizer.ggml.merges'", "a list of text", "none");
  spec.merges = *merges;
  return spec;
}

}  // namespace memslot
