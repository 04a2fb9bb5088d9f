#include "generator/model/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"
#include "shared/files/mapped_file.h"

namespace memslot {
namespace {

using Json = nlohmann::json;
constexpr std::int64_t kMaxTokens = 1 << 22;

Error unsupported(const std::string& what, const std::string& expected, const Json& found) {
  return {ErrorCode::kNotSupported,
          what + ": expected " + expected + ", found " + dump_start(found, 120)};
}

const Json& field(const Json& json, const char* key) {
  static const Json null;
  return json.is_object() && json.contains(key) ? json[key] : null;
}

bool is_true(const Json& json) { return json.is_boolean() && json.get<bool>(); }

// Ids may come in any order; what lies between them unnamed stays kUnused.
Status place(TokenizerSpec& spec, const std::string& token, const Json& id, TokenType type) {
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMaxTokens) {
    return corrupt("id of token '" + token.substr(0, 80) + "'", "0 to 2^22 - 1", id.dump());
  }
  const auto i = id.get<std::size_t>();
  if (i >= spec.tokens.size()) {
    spec.tokens.resize(i + 1);
    spec.types.resize(i + 1, TokenType::kUnused);
  }
  if (spec.types[i] != TokenType::kUnused && spec.tokens[i] != token) {
    return corrupt("token of id " + std::to_string(i), "'" + spec.tokens[i] + "'",
                   "'" + token + "'");
  }
  spec.tokens[i] = token;
  spec.types[i] = type;
  return ok();
}

Status read_vocab(const Json& vocab, TokenizerSpec& spec) {
  if (!vocab.is_object())
    return corrupt("vocabulary", "an object of spelling and id", vocab.type_name());
  for (const auto& [token, id] : vocab.items()) {
    MEMSLOT_TRY(place(spec, token, id, TokenType::kNormal));
  }
  return ok();
}

// "left right", or (newer files) ["left", "right"].
Status read_merges(const Json& merges, TokenizerSpec& spec) {
  if (!merges.is_array()) return corrupt("merges", "a list", merges.type_name());
  for (const auto& merge : merges) {
    if (merge.is_string()) {
      spec.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    } else {
      return corrupt("merge " + std::to_string(spec.merges.size()), "two spellings",
                     merge.type_name());
    }
  }
  return ok();
}

bool is_byte_level(const Json& pre) {
  const Json& regex = field(pre, "use_regex");
  return field(pre, "type") == "ByteLevel" && !is_true(field(pre, "add_prefix_space")) &&
         (regex.is_null() || is_true(regex));
}

Result<PreTokenizer> read_pre(const Json& pre) {
  if (is_byte_level(pre)) return PreTokenizer::kGpt2;
  const Json& parts = field(pre, "pretokenizers");
  if (field(pre, "type") == "Sequence" && parts.is_array() && !parts.empty() &&
      is_byte_level(parts.back())) {
    if (parts.size() == 1) return PreTokenizer::kGpt2;
    if (parts.size() == 2 && field(parts[0], "type") == "Digits" &&
        is_true(field(parts[0], "individual_digits"))) {
      return PreTokenizer::kSmolLm;
    }
  }
  return unsupported("tokenizer.json pre_tokenizer",
                     "ByteLevel, or Digits (individual) and ByteLevel", pre);
}

Status read_added(const Json& added, TokenizerSpec& spec) {
  if (added.is_null()) return ok();
  if (!added.is_array()) return corrupt("tokenizer.json added_tokens", "a list", added.type_name());
  for (const auto& token : added) {
    const Json& content = field(token, "content");
    if (!content.is_string())
      return corrupt("tokenizer.json added token", "content", content.type_name());
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (is_true(field(token, key)))
        return unsupported(std::string("tokenizer.json added token's ") + key, "false", token);
    }
    const auto type =
        is_true(field(token, "special")) ? TokenType::kControl : TokenType::kUserDefined;
    MEMSLOT_TRY(place(spec, content.get<std::string>(), field(token, "id"), type));
  }
  return ok();
}

Result<Json> parse_object(std::string_view text, const char* what) {
  if (!json_depth_fits(text))
    return corrupt(std::string(what) + " nesting", "at most 64", "deeper");
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return corrupt(what, "a JSON object", json.is_discarded() ? "no JSON" : json.type_name());
  return json;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

Result<TokenizerSpec> read_folder(const std::string& folder) {
  const std::string whole = folder + "/tokenizer.json", vocab = folder + "/vocab.json";
  if (exists(whole)) {
    MEMSLOT_TRY(const auto text, read_text_file(whole));
    auto spec = tokenizer_from_json(text);
    if (!spec) return spec.error().with_context(whole);
    return spec;
  }
  if (!exists(vocab)) return TokenizerSpec{};
  MEMSLOT_TRY(const auto vocab_text, read_text_file(vocab));
  MEMSLOT_TRY(const auto merges_text, read_text_file(folder + "/merges.txt"));
  auto spec = tokenizer_from_vocab(vocab_text, merges_text);
  if (!spec) return spec.error().with_context(vocab);
  return spec;
}

}  // namespace

Result<std::string> read_text_file(const std::string& path) {
  MEMSLOT_TRY(const auto file, MappedFile::open(path));
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

Result<TokenizerSpec> tokenizer_from_json(std::string_view tokenizer_json) {
  MEMSLOT_TRY(const auto json, parse_object(tokenizer_json, "tokenizer.json"));
  const Json& model = field(json, "model");
  const Json& type = field(model, "type");  // absent in old files, which were all BPE
  if (!type.is_null() && type != "BPE")
    return unsupported("tokenizer.json model type", "BPE", type);
  if (is_true(field(model, "byte_fallback")))
    return unsupported("tokenizer.json byte_fallback", "false", true);
  if (is_true(field(model, "ignore_merges")))
    return unsupported("tokenizer.json ignore_merges", "false", true);
  if (!field(json, "normalizer").is_null())
    return unsupported("tokenizer.json normalizer", "none", json["normalizer"]);
  TokenizerSpec spec;
  MEMSLOT_TRY(spec.pre, read_pre(field(json, "pre_tokenizer")));
  MEMSLOT_TRY(read_vocab(field(model, "vocab"), spec));
  MEMSLOT_TRY(read_merges(field(model, "merges"), spec));
  MEMSLOT_TRY(read_added(field(json, "added_tokens"), spec));
  return spec;
}

Result<TokenizerSpec> tokenizer_from_vocab(std::string_view vocab_json,
                                           std::string_view merges_txt) {
  MEMSLOT_TRY(const auto vocab, parse_object(vocab_json, "vocab.json"));
  TokenizerSpec spec;
  MEMSLOT_TRY(read_vocab(vocab, spec));
  bool first = true;
  while (!merges_txt.empty()) {
    const auto end = std::min(merges_txt.find('\n'), merges_txt.size());
    auto line = merges_txt.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    merges_txt.remove_prefix(std::min(end + 1, merges_txt.size()));
    // Only the first line is a comment: "# #" may be a merge.
    if (!line.empty() && !(first && line.starts_with("#version"))) spec.merges.emplace_back(line);
    first = false;
  }
  return spec;
}

Result<TokenizerSpec> tokenizer_from_folder(const std::string& folder, const ModelConfig& config) {
  MEMSLOT_TRY(auto spec, read_folder(folder));
  if (spec.tokens.empty()) return spec;
  const int size = static_cast<int>(spec.tokens.size());
  for (const int id : {config.bos, config.eos}) {
    if (id >= 0 && id < size) spec.types[static_cast<std::size_t>(id)] = TokenType::kControl;
  }
  spec.bos = config.bos < size ? config.bos : -1;
  spec.eos = config.eos < size ? config.eos : -1;
  return spec;
}

}  // namespace memslot
