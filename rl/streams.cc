#include "rl/streams.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "shared/base/digest.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::size_t kLeastArticles = 12;
constexpr std::uint32_t kDecisionTokens = 64;  // of a prompt case
constexpr std::uint32_t kKnownSteps = 4;       // of a continuation
constexpr std::uint32_t kControlSteps = 8;     // of a training control stream, as passages have
constexpr Split kAllSplits[] = {Split::kTrain, Split::kValidation, Split::kTest};

// Numbers drawn in order from one seed; `use` keeps the draws of different uses apart.
class Draw {
 public:
  Draw(std::uint64_t seed, std::uint64_t use) : seed_(seed), use_(use) {}
  std::size_t below(std::size_t n) { return uniform_below(n, seed_, use_, at_++); }
  std::size_t between(std::size_t least, std::size_t most) {
    return least + below(most - least + 1);
  }
  bool once_in(std::size_t n) { return below(n) == 0; }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = 0; i + 1 < items.size(); ++i)
      std::swap(items[i], items[i + below(items.size() - i)]);
  }

 private:
  std::uint64_t seed_, use_, at_ = 0;
};

// A stretch of tokens that a passage may be taken from.
struct Stretch {
  const TokenText* text = nullptr;
  std::int32_t source = -1;
  bool covered = false;
  std::size_t first = 0, last = 0;  // tokens [first, last)
  std::size_t tokens() const { return last - first; }
};

class Builder {
 public:
  Builder(const std::vector<SourceArticle>& articles, const std::vector<CleanText>& clean,
          const StreamOptions& options)
      : articles_(articles), clean_(clean) {
    set_.options = options;
  }
  Result<StreamSet> run();

 private:
  struct Pool {  // of one split
    std::vector<Stretch> covered, uncovered, clean;
  };
  Status split_sources();
  void plan_memories();
  void plan_memory(std::size_t source, std::size_t first, std::size_t last);
  Status fill_pools();
  std::size_t share(std::size_t count, Split split) const;

  void add_streams(Split split);
  void add_stream(Split split, std::size_t number, Draw& draw);
  const Stretch& next_stretch(const Pool& pool, const Stretch* before, std::size_t tokens,
                              Draw& draw) const;
  void add_prompt(Split split, std::size_t number, Draw& draw);
  void add_continuation(Split split, std::size_t number, Draw& draw);
  void add_controls(Split split, Draw& draw);
  void add(PlannedStream stream);

  const std::vector<SourceArticle>& articles_;
  const std::vector<CleanText>& clean_;
  StreamSet set_;
  std::vector<std::size_t> article_;  // of each source
  std::map<Split, Pool> pools_;
  std::uint64_t rows_ = 0;
};

const char* split_name(Split split) {
  return split == Split::kTrain ? "train" : split == Split::kValidation ? "validation" : "test";
}

std::string stream_id(const char* kind, Split split, std::size_t number) {
  return std::string(kind) + "-" + split_name(split) + "-" + std::to_string(number);
}

// Tokens of a stretch that begin and end with words.
std::pair<std::size_t, std::size_t> whole_words(const TokenText& text, std::size_t first,
                                                std::size_t last) {
  const std::size_t from = text.word_at(first);
  std::size_t to = text.word_at(last);
  if (text.token_of(to) > last && to > from) --to;
  return {from, to};
}

Status Builder::split_sources() {
  const std::size_t least = set_.options.step_tokens * 8 + kDecisionTokens;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < articles_.size(); ++i) {
    if (articles_[i].text.ids.size() >= least) order.push_back(i);
  }
  if (order.size() < kLeastArticles) {
    return invalid("articles of at least " + std::to_string(least) + " tokens",
                   "at least " + std::to_string(kLeastArticles), order.size());
  }
  Draw draw(set_.options.seed, 1);
  draw.shuffle(order);
  const auto part = [&](double share) {
    const double count = std::round(static_cast<double>(order.size()) * share / 60);
    return std::max<std::size_t>(3, static_cast<std::size_t>(count));
  };
  const std::size_t validation = part(8), test = part(16), train = order.size() - validation - test;
  std::set<std::string> names;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const bool in_train = i < train, in_validation = !in_train && i < train + validation;
    const Split split = in_train        ? Split::kTrain
                        : in_validation ? Split::kValidation
                                        : Split::kTest;
    const std::size_t begin = in_train ? 0 : in_validation ? train : train + validation;
    const std::size_t count = in_train ? train : in_validation ? validation : test;
    // The first quarter of the split, at least one.
    const bool uncovered = i - begin < std::max<std::size_t>(1, (count + 2) / 4);
    const SourceArticle& article = articles_[order[i]];
    const std::string plain = slug(article.title).substr(0, 60);
    std::string name = plain;
    for (std::size_t n = 2; !names.insert(name).second; ++n) name = plain + "-" + std::to_string(n);
    set_.sources.push_back({name, split, !uncovered});
    set_.titles.push_back(article.title);
    article_.push_back(order[i]);
  }
  return ok();
}

void Builder::plan_memory(std::size_t source, std::size_t first, std::size_t last) {
  const TokenText& text = articles_[article_[source]].text;
  const auto [from, to] = whole_words(text, first, last);
  if (from >= to) return;
  PlannedMemory m;
  m.source = static_cast<std::int32_t>(source);
  m.first_word = from;
  m.words = to - from;
  m.first_token = text.token_of(from);
  m.tokens = text.token_of(to) - m.first_token;
  const std::size_t begin = text.words[from].begin;
  m.text = text.text.substr(begin, text.words[to - 1].end - begin);
  Sha256Stream digest;
  for (const std::string& part : {m.text, set_.options.model, set_.options.learn_config}) {
    digest.update(bytes_of(std::to_string(part.size()) + ":"));
    digest.update(bytes_of(part));
  }
  m.id = set_.sources[source].name + "-" + digest.finish().hex().substr(0, 16);
  set_.memories.push_back(std::move(m));
}

void Builder::plan_memories() {
  const StreamOptions& o = set_.options;
  for (std::size_t s = 0; s < set_.sources.size(); ++s) {
    if (!set_.sources[s].has_memory) continue;
    const std::size_t all = articles_[article_[s]].text.ids.size();
    std::size_t count = 0;
    for (std::size_t at = 0; count < o.memories_each && at + o.memory_tokens <= all; ++count) {
      plan_memory(s, at, at + o.memory_tokens);
      at += o.memory_tokens + o.held_back_tokens;
    }
    if (count == 0) plan_memory(s, 0, all);  // a short article, whole
  }
}

std::size_t Builder::share(std::size_t count, Split split) const {
  const auto of_split = static_cast<std::size_t>(
      std::count_if(set_.sources.begin(), set_.sources.end(),
                    [&](const TableSource& s) { return s.split == split; }));
  return (count * of_split + set_.sources.size() / 2) / set_.sources.size();
}

Status Builder::fill_pools() {
  for (const PlannedMemory& m : set_.memories) {
    const auto s = static_cast<std::size_t>(m.source);
    pools_[set_.sources[s].split].covered.push_back(
        {&articles_[article_[s]].text, m.source, true, m.first_token, m.first_token + m.tokens});
  }
  for (std::size_t s = 0; s < set_.sources.size(); ++s) {
    if (set_.sources[s].has_memory) continue;
    const TokenText& text = articles_[article_[s]].text;
    pools_[set_.sources[s].split].uncovered.push_back(
        {&text, static_cast<std::int32_t>(s), false, 0, text.ids.size()});
  }
  const std::size_t least = set_.options.step_tokens * 2 + 1;
  for (const CleanText& text : clean_) {
    if (text.text.ids.size() < least) continue;
    pools_[text.split].clean.push_back({&text.text, -1, false, 0, text.text.ids.size()});
  }
  for (const Split split : kAllSplits) {
    if (!pools_[split].clean.empty()) continue;
    return invalid(std::string("clean prose of the split ") + split_name(split),
                   "a text of at least " + std::to_string(least) + " tokens", "none");
  }
  return ok();
}

// Of another source than the passage before, where there is one; long enough for two steps.
const Stretch& Builder::next_stretch(const Pool& pool, const Stretch* before, std::size_t tokens,
                                     Draw& draw) const {
  const std::vector<Stretch>& from = !draw.once_in(4)  ? pool.covered
                                     : draw.once_in(2) ? pool.uncovered
                                                       : pool.clean;
  for (int attempt = 0;; ++attempt) {
    const Stretch& found = from[draw.below(from.size())];
    const bool same = before != nullptr && found.text == before->text;
    if ((!same && found.tokens() > tokens) || attempt == 100) return found;
  }
}

void Builder::add_stream(Split split, std::size_t number, Draw& draw) {
  const Pool& pool = pools_.at(split);
  const std::uint32_t step = set_.options.step_tokens;
  PlannedStream s;
  s.table.id = stream_id("stream", split, number);
  s.table.kind = StreamKind::kStream;
  s.table.split = split;
  const Stretch* before = nullptr;
  while (s.table.steps.size() < set_.options.steps) {
    const std::size_t left = set_.options.steps - s.table.steps.size();
    const std::size_t wanted = std::min(left, draw.between(2, 6));
    const Stretch& from = next_stretch(pool, before, wanted * step, draw);
    const std::size_t steps = std::min(wanted, (from.tokens() - 1) / step);
    // From the second token on: the stream's own first one is the token before.
    const std::size_t first = from.first + draw.between(1, from.tokens() - steps * step);
    const auto at = from.text->ids.begin() + static_cast<std::ptrdiff_t>(first);
    if (s.ids.empty()) s.ids.push_back(*(at - 1));
    s.ids.insert(s.ids.end(), at, at + static_cast<std::ptrdiff_t>(steps * step));
    s.table.steps.insert(s.table.steps.end(), steps, {step, from.source, from.covered});
    before = &from;
  }
  add(std::move(s));
}

void Builder::add_prompt(Split split, std::size_t number, Draw& draw) {
  const Pool& pool = pools_.at(split);
  const std::vector<Stretch>& from = draw.once_in(4) ? pool.uncovered : pool.covered;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const Stretch& stretch = from[draw.below(from.size())];
    const auto [first, last] = whole_words(*stretch.text, stretch.first, stretch.last);
    const std::size_t words = draw.between(32, 64);
    if (last - first <= words) continue;
    const std::size_t word = first + draw.below(last - first - words);
    const std::size_t begin = stretch.text->token_of(word);
    const std::size_t end = stretch.text->token_of(word + words);
    if (end + kDecisionTokens > stretch.last) continue;
    PlannedStream s;
    s.table.id = stream_id("prompt", split, number);
    s.table.kind = StreamKind::kPrompt;
    s.table.split = split;
    const auto at = stretch.text->ids.begin();
    s.ids.assign(at + static_cast<std::ptrdiff_t>(begin),
                 at + static_cast<std::ptrdiff_t>(end + kDecisionTokens));
    for (const std::uint32_t tokens : cut_steps(end - begin - 1, set_.options.step_tokens)) {
      s.table.steps.push_back({tokens, stretch.source, stretch.covered});
    }
    s.table.steps.push_back({kDecisionTokens, stretch.source, stretch.covered});
    return add(std::move(s));
  }
}

void Builder::add_continuation(Split split, std::size_t number, Draw& draw) {
  const std::uint32_t step = set_.options.step_tokens;
  std::vector<const PlannedMemory*> able;
  for (const PlannedMemory& m : set_.memories) {
    const auto s = static_cast<std::size_t>(m.source);
    const std::size_t end = m.first_token + m.tokens;
    if (set_.sources[s].split == split && m.tokens > kKnownSteps * step &&
        end + set_.options.held_back_tokens <= articles_[article_[s]].text.ids.size()) {
      able.push_back(&m);
    }
  }
  if (able.empty()) return;
  const PlannedMemory& m = *able[draw.below(able.size())];
  const TokenText& text = articles_[article_[static_cast<std::size_t>(m.source)]].text;
  const std::size_t end = m.first_token + m.tokens;
  const std::size_t unseen = set_.options.held_back_tokens / step;
  PlannedStream s;
  s.table.id = stream_id("continuation", split, number);
  s.table.kind = StreamKind::kContinuation;
  s.table.split = split;
  const auto at = text.ids.begin() + static_cast<std::ptrdiff_t>(end);
  s.ids.assign(at - static_cast<std::ptrdiff_t>(kKnownSteps * step) - 1,
               at + static_cast<std::ptrdiff_t>(unseen * step));
  s.table.steps.assign(kKnownSteps + unseen, {step, m.source, true});
  add(std::move(s));
}

// A passage whole; of training prose, whose texts are longer, a stretch as long as a passage.
void Builder::add_controls(Split split, Draw& draw) {
  const std::uint32_t step = set_.options.step_tokens;
  std::size_t number = 0;
  for (const CleanText& text : clean_) {
    const bool training = split == Split::kTrain;
    const std::vector<std::int32_t>& ids = text.text.ids;
    if (text.split != split || !(text.control || training) || ids.size() < 2) continue;
    std::size_t first = 0, tokens = ids.size() - 1;
    if (training && tokens > std::size_t{kControlSteps} * step) {
      first = draw.below(tokens - kControlSteps * step + 1);
      tokens = kControlSteps * step;
    }
    PlannedStream s;
    s.table.id = stream_id("control", split, number++);
    s.table.kind = StreamKind::kControl;
    s.table.split = split;
    const auto at = ids.begin() + static_cast<std::ptrdiff_t>(first);
    s.ids.assign(at, at + static_cast<std::ptrdiff_t>(tokens + 1));
    for (const std::uint32_t n : cut_steps(tokens, step)) s.table.steps.push_back({n, -1, false});
    add(std::move(s));
  }
}

void Builder::add(PlannedStream stream) {
  stream.table.first = rows_;
  rows_ += stream.table.steps.size();
  set_.streams.push_back(std::move(stream));
}

void Builder::add_streams(Split split) {
  const StreamOptions& o = set_.options;
  const auto use = [split](std::uint64_t kind) {
    return 16 + 3 * kind + static_cast<std::uint64_t>(split);
  };
  Draw streams(o.seed, use(0)), prompts(o.seed, use(1)), continuations(o.seed, use(2));
  Draw controls(o.seed, use(3));
  for (std::size_t i = 0; i < share(o.streams, split); ++i) add_stream(split, i, streams);
  for (std::size_t i = 0; i < share(o.prompts, split); ++i) add_prompt(split, i, prompts);
  for (std::size_t i = 0; i < share(o.continuations, split); ++i)
    add_continuation(split, i, continuations);
  add_controls(split, controls);
}

Result<StreamSet> Builder::run() {
  MEMSLOT_TRY(split_sources());
  plan_memories();
  MEMSLOT_TRY(fill_pools());
  for (const Split split : kAllSplits) add_streams(split);
  return std::move(set_);
}

}  // namespace

std::vector<std::uint32_t> cut_steps(std::size_t tokens, std::uint32_t step_tokens) {
  std::vector<std::uint32_t> out;
  for (; tokens > 0; tokens -= out.back())
    out.push_back(static_cast<std::uint32_t>(std::min<std::size_t>(tokens, step_tokens)));
  return out;
}

Result<StreamSet> make_streams(const std::vector<SourceArticle>& articles,
                               const std::vector<CleanText>& clean, const StreamOptions& options) {
  MEMSLOT_CHECK(options.step_tokens > 0 && options.memory_tokens >= 8 * options.step_tokens);
  return Builder(articles, clean, options).run();
}

}  // namespace memslot
