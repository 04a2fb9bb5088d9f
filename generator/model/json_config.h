#pragma once
// ModelConfig from a Hugging Face config.json (model_type "llama" or "gpt2").
//
// What a model needs beyond the plain family is refused, not ignored: rope scaling, MLP biases,
// another activation, scaled attention.
//
// Errors:  kCorruption (not JSON, a field absent, of another type or out of range), kNotSupported.
// Threads: pure function.
#include <string_view>

#include "generator/model/config.h"
#include "shared/base/error.h"

namespace memslot {

Result<ModelConfig> config_from_json(std::string_view text);

}  // namespace memslot
