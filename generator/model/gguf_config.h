#pragma once
// ModelConfig and TokenizerSpec from a GGUF header (general.architecture "llama").
//
// tokenizer.ggml.model must be "gpt2" (byte-level BPE); tokenizer.ggml.pre "smollm" is kSmolLm;
// "gpt-2", "default" and none are kGpt2. Other pre-tokenizers are refused, since a wrong cut gives
// wrong ids without any other sign.
//
// Errors:  kCorruption (a key absent, of another type or out of range), kNotSupported.
// Threads: pure functions.
#include "generator/model/config.h"
#include "generator/model/gguf.h"
#include "generator/model/tokenizer.h"
#include "shared/base/error.h"

namespace memslot {

Result<ModelConfig> config_from_gguf(const GgufIndex& index);
// Empty if the file has no tokenizer.
Result<TokenizerSpec> tokenizer_from_gguf(const GgufIndex& index);

}  // namespace memslot
