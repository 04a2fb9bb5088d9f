#pragma once
// Byte-level BPE: text <-> token ids, as GPT-2 and SmolLM2 were trained with.
//
// Text is cut into words (pretokenizer.h); each word's UTF-8 bytes are written in GPT-2's byte
// alphabet (unicode.h) and the adjacent pair with the lowest merge rank is joined until none is
// left.                                             Sennrich et al. 2016; Radford et al. 2019.
//
// A vocabulary need not spell all 256 bytes (SmolLM2's lacks rare control bytes). Such a byte is
// left out, and nothing is joined across it, as llama.cpp does; all other text decodes to itself.
//
// Threads:  Tokenizer is immutable but for a locked word cache: any thread. A StreamDecoder belongs
//           to one thread and must not outlive its Tokenizer.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

enum class PreTokenizer {
  kGpt2,    // GPT-2's regex
  kSmolLm,  // every single \p{N} apart first, then GPT-2's regex on what lies between
};

enum class TokenType : std::uint8_t {  // values as in GGUF
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // recognised in text only when asked (EncodeOptions::parse_special)
  kUserDefined = 4,  // always recognised in text
  kUnused = 5,
  kByte = 6,
};

// What a model file says about its tokenizer.
struct TokenizerSpec {
  std::vector<std::string> tokens;  // id -> spelling, in the byte alphabet; specials plain UTF-8
  std::vector<TokenType> types;     // one per token
  std::vector<std::string> merges;  // "left right", best first
  PreTokenizer pre = PreTokenizer::kGpt2;
  bool add_bos = false;  // the model expects bos in front of a text
  int bos = -1;          // ids, -1 if there is none
  int eos = -1;
  std::string chat_template;  // Jinja, as the file has it; "": none
};

struct EncodeOptions {
  bool parse_special = false;  // control tokens written out in the text become their ids
  bool add_bos = false;        // put spec.bos in front, where the spec has one
};

class Tokenizer {
 public:
  // kNotFound: the spec is empty. kCorruption: types or a merge that do not fit the tokens, no byte
  // symbol among them, a token twice, a special id outside them.
  static Result<Tokenizer> make(const TokenizerSpec& spec);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // kInvalidArgument: `text` is not UTF-8 (the message has the byte's offset).
  Result<std::vector<std::int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;

  // The bytes that the ids stand for; cut anywhere, they need not be whole UTF-8.
  // kInvalidArgument: an id outside the vocabulary.
  Result<std::string> decode(std::span<const std::int32_t> ids) const;

  int vocab() const;
  bool is_control(std::int32_t id) const;  // false outside the vocabulary
  int bos() const;                         // -1 if none
  int eos() const;
  bool add_bos() const;
  const std::string& chat_template() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns ids into text as they come. Bytes of an unfinished UTF-8 character are held back until it
// is whole; bytes that can never become one are given out as U+FFFD. So each answer is valid UTF-8.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // The text that this id completes, maybe empty. kInvalidArgument: id outside the vocabulary.
  Result<std::string> push(std::int32_t id);
  // What is still held back (U+FFFD if it is unfinished), and back to the start.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string held_;  // at most 3 bytes
};

}  // namespace memslot
