#pragma once
// TokenizerSpec from the files of a Hugging Face folder: tokenizer.json, else vocab.json with
// merges.txt.
//
//   tokenizer.json   BPE; pre-tokenizer ByteLevel (kGpt2) or Digits(individual) + ByteLevel
//                    (kSmolLm); added tokens are kControl where "special", else kUserDefined.
//   vocab.json       {"spelling": id}; GPT-2's rule; the ids named by the config as bos and eos
//                    are kControl. merges.txt: a line a merge, "#version" first.
//
// Errors:  kCorruption (not JSON, fields or ids that do not fit), kNotFound (vocab.json without
//          merges.txt), kNotSupported (another model, normaliser or pre-tokenizer), kIo.
// Threads: pure functions.
#include <string>

#include "generator/model/config.h"
#include "generator/model/tokenizer.h"
#include "shared/base/error.h"

namespace memslot {

// Empty if the folder has neither.
Result<TokenizerSpec> tokenizer_from_folder(const std::string& folder, const ModelConfig& config);

Result<TokenizerSpec> tokenizer_from_json(std::string_view tokenizer_json);
Result<TokenizerSpec> tokenizer_from_vocab(std::string_view vocab_json,
                                           std::string_view merges_txt);

// A whole file as text. kNotFound, kIo.
Result<std::string> read_text_file(const std::string& path);

}  // namespace memslot
