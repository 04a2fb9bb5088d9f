#include "rl/evaluate.h"

#include <algorithm>
#include <map>

#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::size_t kDraws = 2000;
constexpr std::uint64_t kSeed = 0x6d656d736c6f74;

double ratio(double a, double b) { return b > 0 ? a / b : 0.0; }

double all_tokens(const StreamScore& s) { return s.tokens; }
double covered_tokens(const StreamScore& s) { return s.covered_tokens; }

constexpr double StreamScore::*kSums[] = {
    &StreamScore::tokens,         &StreamScore::gain,
    &StreamScore::regret,         &StreamScore::steps,
    &StreamScore::covered_tokens, &StreamScore::covered_gain,
    &StreamScore::right,          &StreamScore::uncovered,
    &StreamScore::abstained,      &StreamScore::swaps,
    &StreamScore::base,           &StreamScore::corpus_nll,
    &StreamScore::prose_nll,      &StreamScore::corpus_base_nll,
    &StreamScore::prose_base_nll,
};

void add(StreamScore& to, const StreamScore& from, double weight) {
  for (const auto sum : kSums) to.*sum += weight * from.*sum;
}

// Streams of one cluster: those whose first step has the same source.
std::map<std::int32_t, std::vector<std::size_t>> clusters(const StreamEnv& env,
                                                          const std::vector<StreamScore>& scores) {
  std::map<std::int32_t, std::vector<std::size_t>> out;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const TableStream& s = env.table().streams[scores[i].stream];
    out[s.steps.empty() ? -1 : s.steps[0].source].push_back(i);
  }
  return out;
}

// The interval of sum(value) / sum(tokens).
template <class Value, class Tokens>
Interval bootstrap(const StreamEnv& env, const std::vector<StreamScore>& scores, Value value,
                   Tokens token_count) {
  std::vector<std::pair<double, double>> sums;  // of each cluster: value, tokens
  for (const auto& [source, members] : clusters(env, scores)) {
    std::pair<double, double> sum;
    for (const std::size_t i : members) {
      sum.first += value(i);
      sum.second += token_count(scores[i]);
    }
    sums.push_back(sum);
  }
  if (sums.empty()) return {};
  std::vector<double> means;
  for (std::size_t draw = 0; draw < kDraws; ++draw) {
    double total = 0, tokens = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const auto& sum = sums[uniform_below(sums.size(), kSeed, draw, i)];
      total += sum.first;
      tokens += sum.second;
    }
    means.push_back(ratio(total, tokens));
  }
  std::sort(means.begin(), means.end());
  return {means[kDraws / 40], means[kDraws - 1 - kDraws / 40]};
}

}  // namespace

std::vector<std::int32_t> roll_out(const StreamEnv& env, std::size_t stream,
                                   const Selector& selector, std::uint32_t lag) {
  EnvState state;
  std::vector<std::int32_t> chosen, active;
  for (std::size_t t = env.first_decision(stream); t < env.table().streams[stream].steps.size();
       ++t) {
    chosen.push_back(selector.choose(env, stream, t, state));
    active.push_back(chosen.size() > lag ? chosen[chosen.size() - 1 - lag] : kBaseAction);
    state = env.after(state, active.back());
  }
  return active;
}

StreamScore score_actions(const StreamEnv& env, std::size_t stream,
                          std::span<const std::int32_t> actions, std::span<const float> gains) {
  const TableStream& s = env.table().streams[stream];
  const std::size_t first = env.first_decision(stream);
  MEMSLOT_CHECK(first + actions.size() == s.steps.size());
  MEMSLOT_CHECK(gains.empty() || gains.size() == actions.size());
  StreamScore out;
  out.stream = stream;
  std::int32_t before = kBaseAction;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const std::size_t t = first + i;
    const std::int32_t action = actions[i], best = env.oracle(stream, t);
    const bool is_base = action == kBaseAction;
    const double tokens = s.steps[t].tokens;
    double gain = static_cast<double>(env.gain(stream, t, action));
    double net = static_cast<double>(env.net(stream, t, action));
    if (!gains.empty()) {
      gain = static_cast<double>(gains[i]);
      net = is_base ? gain : gain - static_cast<double>(env.generic(stream, t));
    }
    out.tokens += tokens;
    out.gain += tokens * net;
    out.regret += tokens * (static_cast<double>(env.net(stream, t, best)) - net);
    if (s.steps[t].covered) {
      out.covered_tokens += tokens;
      out.covered_gain += tokens * net;
    } else {
      out.uncovered += 1;
      out.abstained += is_base ? 1 : 0;
      const double base_nll = tokens * static_cast<double>(env.base_surprise(stream, t));
      (s.steps[t].source >= 0 ? out.corpus_base_nll : out.prose_base_nll) += base_nll;
      (s.steps[t].source >= 0 ? out.corpus_nll : out.prose_nll) += base_nll - tokens * gain;
    }
    out.steps += 1;
    out.right += action == best ? 1 : 0;
    out.base += is_base ? 1 : 0;
    out.swaps += action != before ? 1 : 0;
    before = action;
  }
  return out;
}

Score summarise(const StreamEnv& env, std::vector<StreamScore> streams) {
  Score out;
  out.streams = std::move(streams);
  StreamScore sum;
  for (const StreamScore& s : out.streams) add(sum, s, 1.0);
  out.mean_gain = ratio(sum.gain, sum.tokens);
  out.regret = ratio(sum.regret, sum.tokens);
  out.accuracy = ratio(sum.right, sum.steps);
  out.abstention = ratio(sum.abstained, sum.uncovered);
  out.swaps_per_100 = ratio(100.0 * sum.swaps, sum.tokens);
  out.covered_gain = ratio(sum.covered_gain, sum.covered_tokens);
  out.base_share = ratio(sum.base, sum.steps);
  out.corpus_nll = ratio(sum.corpus_nll - sum.corpus_base_nll, sum.corpus_base_nll);
  out.prose_nll = ratio(sum.prose_nll - sum.prose_base_nll, sum.prose_base_nll);
  out.ci95 = bootstrap(
      env, out.streams, [&](std::size_t i) { return out.streams[i].gain; }, all_tokens);
  return out;
}

Score evaluate(const StreamEnv& env, Split split, const Selector& selector,
               const EvaluateOptions& options) {
  std::vector<StreamScore> streams;
  for (const std::size_t stream : env.streams(split)) {
    if (options.kind && env.table().streams[stream].kind != *options.kind) continue;
    streams.push_back(score_actions(env, stream, roll_out(env, stream, selector, options.lag)));
  }
  return summarise(env, std::move(streams));
}

Score mean_score(const StreamEnv& env, std::span<const Score> scores) {
  MEMSLOT_CHECK(!scores.empty());
  std::vector<StreamScore> streams;
  for (std::size_t i = 0; i < scores[0].streams.size(); ++i) {
    StreamScore mean;
    mean.stream = scores[0].streams[i].stream;
    for (const Score& score : scores) {
      MEMSLOT_CHECK(score.streams.size() == scores[0].streams.size() &&
                    score.streams[i].stream == mean.stream);
      add(mean, score.streams[i], 1.0 / static_cast<double>(scores.size()));
    }
    streams.push_back(mean);
  }
  return summarise(env, std::move(streams));
}

Interval paired_difference(const StreamEnv& env, const Score& a, const Score& b) {
  MEMSLOT_CHECK(a.streams.size() == b.streams.size());
  return bootstrap(
      env, a.streams,
      [&](std::size_t i) {
        MEMSLOT_CHECK(a.streams[i].stream == b.streams[i].stream);
        return a.streams[i].gain - b.streams[i].gain;
      },
      all_tokens);
}

Interval covered_difference(const StreamEnv& env, const Score& a, const Score& b) {
  MEMSLOT_CHECK(a.streams.size() == b.streams.size());
  return bootstrap(
      env, a.streams,
      [&](std::size_t i) {
        MEMSLOT_CHECK(a.streams[i].stream == b.streams[i].stream);
        return a.streams[i].covered_gain - b.streams[i].covered_gain;
      },
      covered_tokens);
}

}  // namespace memslot
