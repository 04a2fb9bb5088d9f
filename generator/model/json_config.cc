#include "generator/model/json_config.h"

#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using Json = nlohmann::json;

bool present(const Json& json, const char* key) {
  return json.contains(key) && !json[key].is_null();
}

Error unsupported(const char* key, const std::string& expected, const Json& found) {
  return {ErrorCode::kNotSupported, std::string("config.json ") + key + ": expected " + expected +
                                        ", found " + dump_start(found, 80)};
}

Result<int> integer(const Json& json, const char* key) {
  const std::string what = std::string("config.json ") + key;
  if (!present(json, key)) return corrupt(what, "an integer", "none");
  if (!json[key].is_number_integer()) return corrupt(what, "an integer", json[key].type_name());
  const bool huge = json[key].is_number_unsigned() && json[key].get<std::uint64_t>() > INT32_MAX;
  const auto value = huge ? std::int64_t{INT32_MAX} + 1 : json[key].get<std::int64_t>();
  if (value < INT32_MIN || value > INT32_MAX)
    return corrupt(what, "a 32-bit integer", "a larger one");
  return static_cast<int>(value);
}

Result<int> integer_or(const Json& json, const char* key, int otherwise) {
  if (!present(json, key)) return otherwise;
  return integer(json, key);
}

Result<float> real_or(const Json& json, const char* key, float otherwise) {
  if (!present(json, key)) return otherwise;
  if (!json[key].is_number())
    return corrupt(std::string("config.json ") + key, "a number", json[key].type_name());
  return json[key].get<float>();
}

Result<bool> flag_or(const Json& json, const char* key, bool otherwise) {
  if (!present(json, key)) return otherwise;
  if (!json[key].is_boolean())
    return corrupt(std::string("config.json ") + key, "true or false", json[key].type_name());
  return json[key].get<bool>();
}

// A token id, or the first of a list of them; -1 if there is none.
Result<int> token_id(const Json& json, const char* key) {
  if (present(json, key) && json[key].is_array()) {
    if (json[key].empty()) return -1;
    return integer(Json{{key, json[key].front()}}, key);
  }
  return integer_or(json, key, -1);
}

Status require_text(const Json& json, const char* key,
                    std::initializer_list<const char*> accepted) {
  if (!present(json, key)) return ok();
  std::string expected;
  for (const char* value : accepted) {
    if (json[key] == value) return ok();
    expected += (expected.empty() ? "" : " or ") + std::string(value);
  }
  return unsupported(key, expected, json[key]);
}

Status require_flag(const Json& json, const char* key, bool expected, bool otherwise) {
  MEMSLOT_TRY(const auto found, flag_or(json, key, otherwise));
  if (found != expected) return unsupported(key, expected ? "true" : "false", found);
  return ok();
}

// rope_theta stands at the top (legacy) or in rope_parameters (transformers 5).
Status read_rope(const Json& json, ModelConfig& c) {
  MEMSLOT_TRY(c.rope_theta, real_or(json, "rope_theta", 10000.0f));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!present(json, key)) continue;
    if (!json[key].is_object())
      return corrupt(std::string("config.json ") + key, "an object", json[key].type_name());
    MEMSLOT_TRY(require_text(json[key], "rope_type", {"default"}));
    MEMSLOT_TRY(require_text(json[key], "type", {"default"}));
    MEMSLOT_TRY(c.rope_theta, real_or(json[key], "rope_theta", c.rope_theta));
  }
  return ok();
}

Status read_common(const Json& json, bool tied_by_default, ModelConfig& c) {
  MEMSLOT_TRY(c.vocab, integer(json, "vocab_size"));
  MEMSLOT_TRY(c.tied_output, flag_or(json, "tie_word_embeddings", tied_by_default));
  MEMSLOT_TRY(c.bos, token_id(json, "bos_token_id"));
  MEMSLOT_TRY(c.eos, token_id(json, "eos_token_id"));
  if (present(json, "_name_or_path") && json["_name_or_path"].is_string())
    c.name = json["_name_or_path"].get<std::string>();
  return ok();
}

Result<int> head_width(int d_model, int heads) {
  if (heads < 1 || d_model % heads != 0)
    return corrupt("config.json heads", "a divisor of the width " + std::to_string(d_model), heads);
  return d_model / heads;
}

Result<ModelConfig> llama(const Json& json) {
  ModelConfig c;
  c.family = ModelConfig::Family::kLlama;
  c.mlp_form = MlpForm::kSwiGlu;
  MEMSLOT_TRY(require_text(json, "hidden_act", {"silu", "swish"}));
  MEMSLOT_TRY(require_flag(json, "mlp_bias", /*expected=*/false, /*otherwise=*/false));
  MEMSLOT_TRY(c.layers, integer(json, "num_hidden_layers"));
  MEMSLOT_TRY(c.d_model, integer(json, "hidden_size"));
  MEMSLOT_TRY(c.d_ff, integer(json, "intermediate_size"));
  MEMSLOT_TRY(c.heads, integer(json, "num_attention_heads"));
  MEMSLOT_TRY(c.kv_heads, integer_or(json, "num_key_value_heads", c.heads));
  if (present(json, "head_dim")) {
    MEMSLOT_TRY(c.head_dim, integer(json, "head_dim"));
  } else {
    MEMSLOT_TRY(c.head_dim, head_width(c.d_model, c.heads));
  }
  MEMSLOT_TRY(c.context, integer_or(json, "max_position_embeddings", 2048));
  MEMSLOT_TRY(c.norm_eps, real_or(json, "rms_norm_eps", 1e-6f));
  MEMSLOT_TRY(read_rope(json, c));
  MEMSLOT_TRY(read_common(json, /*tied_by_default=*/false, c));
  return c;
}

Result<ModelConfig> gpt2(const Json& json) {
  ModelConfig c;
  c.family = ModelConfig::Family::kGpt2;
  c.mlp_form = MlpForm::kGeluTanh;
  MEMSLOT_TRY(require_text(json, "activation_function", {"gelu_new", "gelu_pytorch_tanh"}));
  MEMSLOT_TRY(require_flag(json, "scale_attn_weights", true, true));
  MEMSLOT_TRY(require_flag(json, "scale_attn_by_inverse_layer_idx", false, false));
  MEMSLOT_TRY(require_flag(json, "add_cross_attention", false, false));
  MEMSLOT_TRY(c.layers, integer(json, "n_layer"));
  MEMSLOT_TRY(c.d_model, integer(json, "n_embd"));
  if (c.d_model < 1 || c.d_model > INT32_MAX / 4)
    return corrupt("config.json n_embd", "1 to 2^20", c.d_model);
  MEMSLOT_TRY(c.d_ff, integer_or(json, "n_inner", 4 * c.d_model));
  MEMSLOT_TRY(c.heads, integer(json, "n_head"));
  c.kv_heads = c.heads;
  MEMSLOT_TRY(c.head_dim, head_width(c.d_model, c.heads));
  MEMSLOT_TRY(c.context, integer(json, "n_positions"));
  MEMSLOT_TRY(c.norm_eps, real_or(json, "layer_norm_epsilon", 1e-5f));
  MEMSLOT_TRY(read_common(json, /*tied_by_default=*/true, c));
  return c;
}

Result<ModelConfig> by_family(const Json& json) {
  if (!present(json, "model_type"))
    return corrupt("config.json model_type", "llama or gpt2", "none");
  if (json["model_type"] == "llama") return llama(json);
  if (json["model_type"] == "gpt2") return gpt2(json);
  return unsupported("model_type", "llama or gpt2", json["model_type"]);
}

}  // namespace

Result<ModelConfig> config_from_json(std::string_view text) {
  if (!json_depth_fits(text)) return corrupt("config.json nesting", "at most 64", "deeper");
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return corrupt("config.json", "a JSON object",
                   json.is_discarded() ? "no JSON" : json.type_name());
  MEMSLOT_TRY(auto config, by_family(json));
  auto checked = check_config(config);
  if (!checked) return checked.error().with_context("config.json");
  return config;
}

}  // namespace memslot
