#include "generator/model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

namespace memslot {
namespace {

// Written out, since PCRE2's own \s has U+180E as well, which is no White_Space since Unicode 6.3.
constexpr const char* kSpaces =
    "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}"
    "\\x{3000}";

std::string gpt2_pattern() {
  const std::string s = kSpaces;
  return "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" + s + "\\p{L}\\p{N}]+|[" + s +
         "]+(?![^" + s + "])|[" + s + "]+";
}

constexpr const char* kDigitPattern = "\\p{N}|\\P{N}+";

// One compiled pattern whose alternatives cover every text without a gap.
class Pattern {
 public:
  explicit Pattern(const std::string& text) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    MEMSLOT_CHECK(code_ != nullptr);
    // Without JIT (some hardened systems) matching is only slower.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  template <class F>
  void each_match(std::string_view text, F found) const {
    const Match match(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    MEMSLOT_CHECK(match != nullptr);
    for (std::size_t at = 0; at < text.size();) {
      const int count =
          pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                      PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, match.get(), nullptr);
      MEMSLOT_CHECK(count > 0);  // the alternatives leave no gap
      const std::size_t end = pcre2_get_ovector_pointer(match.get())[1];
      MEMSLOT_CHECK(end > at);
      found(text.substr(at, end - at));
      at = end;
    }
  }

 private:
  struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  using Match = std::unique_ptr<pcre2_match_data, FreeMatch>;

  std::unique_ptr<pcre2_code, FreeCode> code_;
};

}  // namespace

struct WordSplitter::Impl {
  PreTokenizer rule;
  Pattern words{gpt2_pattern()};
  Pattern digits{kDigitPattern};
};

WordSplitter::WordSplitter(PreTokenizer rule) : impl_(new Impl{.rule = rule}) {}
WordSplitter::WordSplitter(WordSplitter&&) noexcept = default;
WordSplitter& WordSplitter::operator=(WordSplitter&&) noexcept = default;
WordSplitter::~WordSplitter() = default;

void WordSplitter::split(std::string_view text, std::vector<std::string_view>& words) const {
  const auto add = [&](std::string_view word) { words.push_back(word); };
  switch (impl_->rule) {
    case PreTokenizer::kGpt2: return impl_->words.each_match(text, add);
    case PreTokenizer::kSmolLm:
      return impl_->digits.each_match(
          text, [&](std::string_view part) { impl_->words.each_match(part, add); });
  }
}

}  // namespace memslot
