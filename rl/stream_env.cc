#include "rl/stream_env.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "rl/whitened_keys.h"

namespace memslot {
namespace {

constexpr float kNotScored = -2.0f;  // below every similarity
constexpr std::size_t kFolds = 6;

constexpr std::ptrdiff_t signed_of(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }

// Training texts by what they come from: a whitening that was fitted without a fold has never seen
// its texts. Clean prose, whose texts have no source in a table, is a fold of its own.
std::size_t fold_of(std::int32_t source) {
  return source >= 0 ? static_cast<std::size_t>(source) % (kFolds - 1) : kFolds - 1;
}

// On all of training, or without one fold of it.
Whitening fit_on_training(const GainTable& table, std::optional<std::size_t> without) {
  std::vector<float> rows;
  const std::size_t d = table.dim();
  const auto append = [&](const HostTensor& from, std::uint64_t first, std::size_t count) {
    const auto begin = from.values.begin() + signed_of(first * d);
    rows.insert(rows.end(), begin, begin + signed_of(count * d));
  };
  for (const TableMemory& m : table.memories) {
    const bool training =
        m.source >= 0 && table.sources[static_cast<std::size_t>(m.source)].split == Split::kTrain;
    if (training && fold_of(m.source) != without) append(table.keys, m.first_key, m.keys);
  }
  for (const TableStream& s : table.streams) {
    if (s.split != Split::kTrain) continue;
    for (std::size_t t = 0; t < s.steps.size(); ++t) {
      const TableStep& step = s.steps[t];
      if (!step.covered && fold_of(step.source) != without) append(table.hidden, s.first + t, 1);
    }
  }
  return Whitening::fit(rows, table.dim(), 1);
}

}  // namespace

Whitening training_whitening(const GainTable& table) { return fit_on_training(table, {}); }

StreamEnv::StreamEnv(const GainTable& table, EnvOptions options)
    : StreamEnv(table, options, training_whitening(table), /*cross_fitted=*/true) {}

StreamEnv::StreamEnv(const GainTable& table, EnvOptions options, Whitening whitening)
    : StreamEnv(table, options, std::move(whitening), /*cross_fitted=*/false) {}

StreamEnv::StreamEnv(const GainTable& table, EnvOptions options, Whitening whitening,
                     bool cross_fitted)
    : table_(table), options_(options) {
  MEMSLOT_CHECK(options.candidates >= 2 && whitening.dim() == table.dim());
  add_space(std::move(whitening));
  for (std::size_t fold = 0; cross_fitted && fold < kFolds; ++fold) {
    add_space(fit_on_training(table, fold));
  }
  const std::size_t rows = table.rows(), r = key_dim(), m = table.memories.size();
  queries_.assign(rows * r, 0.0f);
  similar_.assign(rows * kSimilarities * m, 0.0f);
  known_.assign(rows, 0);
  nearest_.assign(rows * m, 0);
  generic_.assign(rows, 0.0f);
  oracle_.assign(rows, kBaseAction);
  for (std::size_t s = 0; s < table.streams.size(); ++s) {
    judge(s);
    for (std::size_t t = 0; t < table.streams[s].steps.size(); ++t) compare(s, t);
  }
}

void StreamEnv::add_space(Whitening whitening) {
  const std::size_t w = whitening.white_dim(), r = whitening.reduced_dim(), d = table_.dim();
  Space space{std::move(whitening), {}, {}};
  space.keys.assign(static_cast<std::size_t>(table_.keys.shape[0]) * w, 0);
  space.means.assign(table_.memories.size() * r, 0.0f);
  for (std::size_t i = 0; i < table_.memories.size(); ++i) {
    const TableMemory& m = table_.memories[i];
    const WhitenedKeys own = memslot::whiten_keys(
        space.whitening, {table_.keys.values.data() + m.first_key * d, m.keys * d});
    std::ranges::copy(own.white, space.keys.begin() + signed_of(m.first_key * w));
    std::ranges::copy(own.mean, space.means.begin() + signed_of(i * r));
  }
  spaces_.push_back(std::move(space));
}

// The newest text decides: what is to be learned is where it comes from. A longer query just after
// a switch is in part of a text that the whitening has seen.
const StreamEnv::Space& StreamEnv::space_of(std::size_t stream, std::size_t step) const {
  const TableStream& s = table_.streams[stream];
  if (spaces_.size() == 1 || s.split != Split::kTrain || step == 0) return spaces_.front();
  const Space& space = spaces_[1 + fold_of(s.steps[step - 1].source)];
  return space.whitening.white_dim() > 0 ? space : spaces_.front();  // a fold that is all there is
}

// What the steps of a stream were worth in hindsight.
void StreamEnv::judge(std::size_t stream) {
  const TableStream& s = table_.streams[stream];
  for (std::size_t t = 0; t < s.steps.size(); ++t) {
    const std::uint64_t at = row(stream, t);
    generic_[at] = table_.generic_of(at, s.steps[t].source);
    float best = 0.0f;
    for (std::size_t m = 0; m < table_.memories.size(); ++m) {
      if (!s.has(m)) continue;
      const float net = table_.gain_of(at, m) - generic_[at];
      if (net > best) {
        best = net;
        oracle_[at] = static_cast<std::int32_t>(m);
      }
    }
  }
}

// Of the window before the step, newest summary first; empty without one.
Whitened StreamEnv::query(const Whitening& whitening, std::size_t stream, std::size_t step,
                          std::uint32_t window) const {
  const std::size_t d = table_.dim();
  std::vector<double> sum(d, 0.0);
  double weight = 0, left = window;
  for (std::size_t back = step; back > 0 && left > 0; --back) {
    const double tokens = std::min<double>(left, table_.streams[stream].steps[back - 1].tokens);
    const float* hidden = table_.hidden.values.data() + row(stream, back - 1) * d;
    for (std::size_t j = 0; j < d; ++j) sum[j] += tokens * static_cast<double>(hidden[j]);
    weight += tokens;
    left -= tokens;
  }
  if (weight == 0) return {};
  std::vector<float> mean(d);
  std::ranges::transform(sum, mean.begin(),
                         [&](double v) { return static_cast<float>(v / weight); });
  return whitening.whiten(mean);
}

float StreamEnv::nearest_key(const Space& space, std::size_t memory,
                             const Bf16Product& query) const {
  const TableMemory& m = table_.memories[memory];
  const std::size_t w = space.whitening.white_dim();
  return best_product({space.keys.data() + m.first_key * w, m.keys * w}, query);
}

void StreamEnv::compare(std::size_t stream, std::size_t step) {
  const std::uint64_t at = row(stream, step);
  const Space& space = space_of(stream, step);
  const Whitened now = query(space.whitening, stream, step, options_.window_tokens);
  known_[at] = std::ranges::any_of(now.white, [](float v) { return v != 0.0f; }) ? 1 : 0;
  if (known_[at] == 0) return;
  const std::size_t r = space.whitening.reduced_dim();
  const Whitened own = query(whitening(), stream, step, options_.window_tokens);
  std::ranges::copy(own.reduced, queries_.begin() + signed_of(at * key_dim()));
  const Bf16Product near(now.white),
      far(query(space.whitening, stream, step, options_.long_window_tokens).white);
  for (std::size_t m = 0; m < table_.memories.size(); ++m) {
    const bool scored = table_.streams[stream].has(m);
    similar(at, kBestKey)[m] = scored ? nearest_key(space, m, near) : kNotScored;
    similar(at, kMeanKey)[m] =
        scored ? dot(now.reduced.data(), space.means.data() + m * r, r) : kNotScored;
    similar(at, kLongKey)[m] = scored ? nearest_key(space, m, far) : kNotScored;
  }
  rank(at);
}

// All of them: how many of the nearest are hidden is not known before.
void StreamEnv::rank(std::uint64_t at) {
  const auto order = nearest_.begin() + signed_of(at * table_.memories.size());
  const auto end = order + signed_of(table_.memories.size());
  std::iota(order, end, 0);
  const float* similar = this->similar(at, kBestKey);
  std::sort(order, end, [&](std::int32_t a, std::int32_t b) {
    const float sa = similar[a], sb = similar[b];
    return sa != sb ? sa > sb : a < b;
  });
}

std::vector<std::size_t> StreamEnv::streams(Split split) const {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < table_.streams.size(); ++i) {
    if (table_.streams[i].split == split) out.push_back(i);
  }
  return out;
}

std::size_t StreamEnv::first_decision(std::size_t stream) const {
  const TableStream& s = table_.streams[stream];
  return s.kind == StreamKind::kPrompt && !s.steps.empty() ? s.steps.size() - 1 : 0;
}

EnvDecision StreamEnv::decision(std::size_t stream, std::size_t step, const EnvState& state,
                                std::span<const char> hidden) const {
  const std::uint64_t at = row(stream, step);
  const std::size_t r = key_dim(), memories = table_.memories.size();
  EnvDecision out;
  const std::span<const float> query(queries_.data() + at * r, r);
  const bool known = known_[at] != 0;
  const auto add = [&](std::int32_t action) {
    if (out.actions.size() >= options_.candidates) return;
    const auto place = static_cast<std::size_t>(action);
    if (action != kBaseAction && !table_.streams[stream].has(place)) return;
    if (action != kBaseAction && !hidden.empty() && hidden[place] != 0) return;
    if (std::find(out.actions.begin(), out.actions.end(), action) != out.actions.end()) return;
    Candidate c;
    c.is_base = action == kBaseAction;
    c.is_current = action == state.active;
    c.swap_cost = c.is_current ? 0.0f : options_.swap_cost;
    if (!c.is_base) {
      const auto m = static_cast<std::size_t>(action);
      c.ref = table_.memories[m].ref;
      c.kind = table_.memories[m].kind;
      c.best_key = similar(at, kBestKey)[m];
      c.mean_key = similar(at, kMeanKey)[m];
      c.long_key = similar(at, kLongKey)[m];
      if (known) c.key = {spaces_.front().means.data() + m * r, r};
    }
    out.actions.push_back(action);
    out.candidates.push_back(std::move(c));
  };
  add(kBaseAction);
  if (state.active != kBaseAction) add(state.active);
  if (known) {
    for (std::size_t i = 0; i < memories && out.actions.size() < options_.candidates; ++i) {
      add(nearest_[at * memories + i]);
    }
  }
  out.context.session = stream;
  out.context.step = step;
  out.context.seed = table_.seed;
  out.context.steps_since_swap = state.steps_since_swap;
  if (known) out.context.query = query;
  if (step > 0) {
    const std::uint64_t before =
        (at - 1) * (memories + 1) + static_cast<std::uint64_t>(state.active + 1);
    out.context.entropy = table_.entropy.values[before];
    out.context.surprise = table_.surprise.values[before];
  }
  return out;
}

EnvState StreamEnv::after(const EnvState& state, std::int32_t action) const {
  return {action, action == state.active ? state.steps_since_swap + 1 : 1};
}

float StreamEnv::gain(std::size_t stream, std::size_t step, std::int32_t action) const {
  return action == kBaseAction
             ? 0.0f
             : table_.gain_of(row(stream, step), static_cast<std::size_t>(action));
}

float StreamEnv::base_surprise(std::size_t stream, std::size_t step) const {
  return table_.surprise.values[row(stream, step) * (table_.memories.size() + 1)];
}

float StreamEnv::net(std::size_t stream, std::size_t step, std::int32_t action) const {
  if (action == kBaseAction) return 0.0f;
  const std::uint64_t at = row(stream, step);
  return table_.gain_of(at, static_cast<std::size_t>(action)) - generic_[at];
}

float StreamEnv::reward(std::size_t stream, std::size_t step, const EnvState& before,
                        std::int32_t action) const {
  return net(stream, step, action) - (action == before.active ? 0.0f : options_.swap_cost) -
         (action == kBaseAction ? 0.0f : options_.margin);
}

std::int32_t StreamEnv::oracle(std::size_t stream, std::size_t step) const {
  return oracle_[row(stream, step)];
}

}  // namespace memslot
