#include "generator/model/tokenizer.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <queue>
#include <unordered_map>

#include "generator/model/pretokenizer.h"
#include "generator/model/unicode.h"

namespace memslot {
namespace {

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
template <class T>
using TextMap = std::unordered_map<std::string, T, TextHash, std::equal_to<>>;
using Ids = std::vector<std::int32_t>;

struct Merge {
  std::int32_t rank;
  std::int32_t joined;
};
using MergeMap = std::unordered_map<std::uint64_t, Merge>;

constexpr std::int32_t kJoined = -1;   // a symbol that is part of the one before
constexpr std::int32_t kNoToken = -2;  // a byte that the vocabulary cannot spell

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

// The bytes a spelling stands for; a spelling outside the alphabet (a special) is its own bytes.
std::string bytes_of_spelling(std::string_view spelling) {
  std::string out;
  for (std::size_t at = 0; at < spelling.size();) {
    const auto c = utf8_at(spelling, at);
    const int byte = c.kind == Utf8Char::Kind::kWhole ? symbol_byte(c.code) : -1;
    if (byte < 0) return std::string(spelling);
    out.push_back(static_cast<char>(byte));
    at += c.bytes;
  }
  return out;
}

// Joins the best pair until none is left: a doubly linked list over the word's symbols and a heap
// of pairs, so a word of n bytes takes n log n steps even where it is a whole page of one letter.
class WordMerger {
 public:
  WordMerger(const MergeMap& merges, Ids symbols) : merges_(merges), ids_(std::move(symbols)) {
    const int n = static_cast<int>(ids_.size());
    for (int i = 0; i < n; ++i) {
      next_.push_back(i + 1 < n ? i + 1 : -1);
      previous_.push_back(i - 1);
    }
    for (int i = 0; i + 1 < n; ++i) offer(i);
  }

  void run(Ids& out) {
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      if (still_there(best)) join(best);
    }
    for (int i = ids_.empty() ? -1 : 0; i >= 0; i = next(i)) {
      if (ids_[index(i)] != kNoToken) out.push_back(ids_[index(i)]);
    }
  }

 private:
  struct Candidate {
    std::int32_t rank;
    int left;  // position; the leftmost of equal ranks goes first
    std::uint64_t pair;
    std::int32_t joined;
    bool operator<(const Candidate& o) const {
      return rank != o.rank ? rank > o.rank : left > o.left;
    }
  };

  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  int next(int i) const { return next_[index(i)]; }

  void offer(int left) {
    const auto pair = pair_key(ids_[index(left)], ids_[index(next(left))]);
    const auto it = merges_.find(pair);
    if (it != merges_.end()) heap_.push({it->second.rank, left, pair, it->second.joined});
  }

  bool still_there(const Candidate& c) const {
    return ids_[index(c.left)] >= 0 && next(c.left) >= 0 &&
           pair_key(ids_[index(c.left)], ids_[index(next(c.left))]) == c.pair;
  }

  void join(const Candidate& c) {
    const int right = next(c.left), after = next(right);
    ids_[index(c.left)] = c.joined;
    ids_[index(right)] = kJoined;
    next_[index(c.left)] = after;
    if (after >= 0) {
      previous_[index(after)] = c.left;
      offer(c.left);
    }
    if (previous_[index(c.left)] >= 0) offer(previous_[index(c.left)]);
  }

  const MergeMap& merges_;
  Ids ids_;
  std::vector<int> next_, previous_;
  std::priority_queue<Candidate> heap_;
};

// Words already merged. Guarded by its own mutex; forgets everything when full.
class WordCache {
 public:
  static constexpr std::size_t kMaxWords = 1 << 16;
  static constexpr std::size_t kMaxWordBytes = 64;

  bool append(std::string_view word, Ids& out) {
    const std::scoped_lock lock(mutex_);
    const auto it = words_.find(word);
    if (it == words_.end()) return false;
    out.insert(out.end(), it->second.begin(), it->second.end());
    return true;
  }
  void add(std::string_view word, std::span<const std::int32_t> ids) {
    if (word.size() > kMaxWordBytes) return;
    const std::scoped_lock lock(mutex_);
    if (words_.size() >= kMaxWords) words_.clear();
    words_.emplace(std::string(word), Ids(ids.begin(), ids.end()));
  }

 private:
  std::mutex mutex_;
  TextMap<Ids> words_;
};

}  // namespace

struct Tokenizer::Impl {
  WordSplitter splitter;
  std::vector<std::string> bytes;  // id -> what it decodes to
  std::vector<TokenType> types;
  std::array<std::int32_t, 256> byte_ids{};
  MergeMap merges;
  // Tokens recognised as a whole, by first byte, longest first.
  std::array<Ids, 256> specials;
  bool add_bos = false;
  std::string chat_template;
  int bos = -1, eos = -1;
  mutable WordCache cache;

  explicit Impl(const TokenizerSpec& spec)
      : splitter(spec.pre),
        types(spec.types),
        add_bos(spec.add_bos),
        chat_template(spec.chat_template),
        bos(spec.bos),
        eos(spec.eos) {}

  Status index_tokens(const TokenizerSpec& spec, TextMap<std::int32_t>& ids);
  Status index_merges(const TokenizerSpec& spec, const TextMap<std::int32_t>& ids);
  std::int32_t special_at(std::string_view text, std::size_t at, bool control) const;
  void encode_plain(std::string_view text, Ids& out) const;
  void encode_word(std::string_view word, Ids& out) const;
};

Status Tokenizer::Impl::index_tokens(const TokenizerSpec& spec, TextMap<std::int32_t>& ids) {
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const auto& token = spec.tokens[i];
    const auto type = spec.types[i];
    const bool whole = type == TokenType::kControl || type == TokenType::kUserDefined;
    bytes.push_back(whole ? token : bytes_of_spelling(token));
    if (type == TokenType::kUnused) continue;
    if (token.empty())
      return corrupt("spelling of token " + std::to_string(i), "at least one byte", "none");
    const auto id = static_cast<std::int32_t>(i);
    if (!ids.emplace(token, id).second) return corrupt("token '" + token + "'", "once", "twice");
    if (whole) specials[static_cast<unsigned char>(token[0])].push_back(id);
  }
  for (auto& list : specials) {
    std::sort(list.begin(), list.end(), [&](std::int32_t a, std::int32_t b) {
      return bytes[static_cast<std::size_t>(a)].size() > bytes[static_cast<std::size_t>(b)].size();
    });
  }
  for (unsigned b = 0; b < 256; ++b) {
    std::string symbol;
    append_utf8(byte_symbol(static_cast<std::uint8_t>(b)), symbol);
    const auto it = ids.find(symbol);
    byte_ids[b] = it == ids.end() ? kNoToken : it->second;
  }
  if (std::all_of(byte_ids.begin(), byte_ids.end(), [](auto id) { return id == kNoToken; })) {
    return corrupt("tokens that spell a byte", "at least one", "none");
  }
  return ok();
}

Status Tokenizer::Impl::index_merges(const TokenizerSpec& spec, const TextMap<std::int32_t>& ids) {
  merges.reserve(spec.merges.size());
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string& line = spec.merges[rank];
    const auto what = [&] { return "merge " + std::to_string(rank); };
    const auto space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      return corrupt(what(), "two spellings", "'" + line.substr(0, 80) + "'");
    }
    const auto left = ids.find(std::string_view(line).substr(0, space));
    const auto right = ids.find(std::string_view(line).substr(space + 1));
    const auto joined = ids.find(line.substr(0, space) + line.substr(space + 1));
    if (left == ids.end() || right == ids.end() || joined == ids.end()) {
      return corrupt(what(), "both spellings and their join among the tokens",
                     "'" + line.substr(0, 80) + "'");
    }
    merges.emplace(pair_key(left->second, right->second),
                   Merge{static_cast<std::int32_t>(rank), joined->second});
  }
  return ok();
}

// The longest special token that starts at `at`, -1 if none.
std::int32_t Tokenizer::Impl::special_at(std::string_view text, std::size_t at,
                                         bool control) const {
  for (const auto id : specials[static_cast<unsigned char>(text[at])]) {
    const auto i = static_cast<std::size_t>(id);
    if (!control && types[i] == TokenType::kControl) continue;
    if (text.substr(at).starts_with(bytes[i])) return id;
  }
  return -1;
}

void Tokenizer::Impl::encode_word(std::string_view word, Ids& out) const {
  if (cache.append(word, out)) return;
  const std::size_t begin = out.size();
  Ids symbols;
  symbols.reserve(word.size());
  for (const char c : word) symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
  WordMerger(merges, std::move(symbols)).run(out);
  cache.add(word, std::span(out).subspan(begin));
}

void Tokenizer::Impl::encode_plain(std::string_view text, Ids& out) const {
  std::vector<std::string_view> words;
  splitter.split(text, words);
  for (const auto word : words) encode_word(word, out);
}

Result<Tokenizer> Tokenizer::make(const TokenizerSpec& spec) {
  if (spec.tokens.empty()) {
    return Error{ErrorCode::kNotFound,
                 "tokenizer: expected tokens and merges in the model's files, found none"};
  }
  if (spec.types.size() != spec.tokens.size())
    return corrupt("token types", spec.tokens.size(), spec.types.size());
  const int vocab = static_cast<int>(spec.tokens.size());
  if (spec.bos < -1 || spec.bos >= vocab)
    return corrupt("bos id", "below " + std::to_string(vocab), spec.bos);
  if (spec.eos < -1 || spec.eos >= vocab)
    return corrupt("eos id", "below " + std::to_string(vocab), spec.eos);
  auto impl = std::make_unique<Impl>(spec);
  TextMap<std::int32_t> ids;
  ids.reserve(spec.tokens.size());
  MEMSLOT_TRY(impl->index_tokens(spec, ids));
  MEMSLOT_TRY(impl->index_merges(spec, ids));
  return Tokenizer(std::move(impl));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view text,
                                                    EncodeOptions options) const {
  if (const auto bad = first_invalid_utf8(text)) {
    return invalid("text at byte " + std::to_string(*bad), "UTF-8",
                   "byte " + std::to_string(static_cast<unsigned char>(text[*bad])));
  }
  Ids out;
  if (options.add_bos && impl_->bos >= 0) out.push_back(impl_->bos);
  std::size_t plain = 0;  // start of the text not yet encoded
  for (std::size_t at = 0; at < text.size();) {
    const auto id = impl_->special_at(text, at, options.parse_special);
    if (id < 0) {
      ++at;
      continue;
    }
    impl_->encode_plain(text.substr(plain, at - plain), out);
    out.push_back(id);
    at += impl_->bytes[static_cast<std::size_t>(id)].size();
    plain = at;
  }
  impl_->encode_plain(text.substr(plain), out);
  return out;
}

Result<std::string> Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string out;
  for (const auto id : ids) {
    if (id < 0 || id >= vocab())
      return invalid("token id", "0 to " + std::to_string(vocab() - 1), id);
    out += impl_->bytes[static_cast<std::size_t>(id)];
  }
  return out;
}

int Tokenizer::vocab() const { return static_cast<int>(impl_->bytes.size()); }
bool Tokenizer::is_control(std::int32_t id) const {
  return id >= 0 && id < vocab() &&
         impl_->types[static_cast<std::size_t>(id)] == TokenType::kControl;
}
int Tokenizer::bos() const { return impl_->bos; }
int Tokenizer::eos() const { return impl_->eos; }
bool Tokenizer::add_bos() const { return impl_->add_bos; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }

Result<std::string> StreamDecoder::push(std::int32_t id) {
  MEMSLOT_TRY(const auto piece, tokenizer_->decode(std::span(&id, 1)));
  held_ += piece;
  std::size_t ready = 0;  // everything before an unfinished character at the end
  while (ready < held_.size()) {
    const auto c = utf8_at(held_, ready);
    if (c.kind == Utf8Char::Kind::kUnfinished) break;
    ready += c.bytes;
  }
  std::string out = to_valid_utf8(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = to_valid_utf8(held_);
  held_.clear();
  return out;
}

}  // namespace memslot
