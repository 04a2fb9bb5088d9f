#include "tests/fuzz/model_readers.h"

#include "generator/model/gguf.h"
#include "generator/model/gguf_config.h"
#include "generator/model/json_config.h"
#include "shared/files/safetensors.h"
#include "generator/model/tokenizer_files.h"

namespace memslot::fuzz {
namespace {

// A tokenizer that can be made must encode and decode any text.
void use(const Result<TokenizerSpec>& spec) {
  if (!spec) return;
  const auto tokenizer = Tokenizer::make(spec.value());
  if (!tokenizer) return;
  const auto ids = tokenizer.value().encode("Hello, w\u00F6rld 42!\n", {.parse_special = true});
  MEMSLOT_CHECK(ids);
  MEMSLOT_CHECK(tokenizer.value().decode(ids.value()));
}

}  // namespace

bool read_gguf(std::span<const std::byte> bytes) {
  const auto index = GgufIndex::parse(bytes);
  if (!index) return false;
  for (const auto& [name, entry] : index.value().tensors) {
    const auto tensor = read_f32(bytes, entry);
    MEMSLOT_CHECK(tensor);
  }
  const auto config = config_from_gguf(index.value());
  if (config) MEMSLOT_CHECK(check_config(config.value()));
  use(tokenizer_from_gguf(index.value()));
  return true;
}

bool read_safetensors(std::span<const std::byte> bytes) {
  const auto index = SafetensorsIndex::parse(bytes);
  if (!index) return false;
  for (const auto& [name, entry] : index.value().tensors) {
    const bool as_float = static_cast<bool>(read_f32(bytes, entry));
    const bool as_id = static_cast<bool>(read_i64(bytes, entry));
    MEMSLOT_CHECK(!(as_float && as_id));
  }
  return true;
}

bool read_json(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const bool is_config = static_cast<bool>(config_from_json(text));
  const auto whole = tokenizer_from_json(text);
  const auto vocab = tokenizer_from_vocab(text, "#version: 0.2\na b\n");
  use(whole);
  use(vocab);
  return is_config || whole || vocab;
}

}  // namespace memslot::fuzz
