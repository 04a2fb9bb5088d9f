#pragma once
// What the fuzzers and the corpus test do with bytes that claim to be a model file: everything that
// opening one does, short of the operating system. They must end without a crash, whatever the
// bytes.
#include <cstddef>
#include <span>

namespace memslot::fuzz {

// Parse, read every tensor, config, tokenizer; true if all of the bytes were taken for a GGUF.
bool read_gguf(std::span<const std::byte> bytes);
bool read_safetensors(std::span<const std::byte> bytes);
// As config.json, tokenizer.json and vocab.json.
bool read_json(std::span<const std::byte> bytes);

}  // namespace memslot::fuzz
