#include "rl/evaluate.h"

#include <algorithm>
#include <map>

#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::size_t kDraws = 2000;
constexpr std::uint64_t kSeed = 0x6d656d736c6f74;

StreamScore run(const StreamEnv& env, std::size_t stream, const Selector& selector,
                std::uint32_t lag) {
  const TableStream& s = env.table().streams[stream];
  StreamScore out;
  out.stream = stream;
  EnvState state;
  std::vector<std::int32_t> chosen;
  for (std::size_t t = env.first_decision(stream); t < s.steps.size(); ++t) {
    chosen.push_back(selector.choose(env, stream, t, state));
    const std::int32_t action = chosen.size() > lag ? chosen[chosen.size() - 1 - lag] : kBaseAction;
    const std::int32_t best = env.oracle(stream, t);
    const double tokens = s.steps[t].tokens;
    const double net = static_cast<double>(env.net(stream, t, action));
    out.tokens += tokens;
    out.gain += tokens * net;
    out.regret += tokens * (static_cast<double>(env.net(stream, t, best)) - net);
    if (s.steps[t].covered) {
      out.covered_tokens += tokens;
      out.covered_gain += tokens * net;
    } else {
      ++out.uncovered;
      out.abstained += action == kBaseAction ? 1 : 0;
    }
    ++out.steps;
    out.right += action == best ? 1 : 0;
    out.base += action == kBaseAction ? 1 : 0;
    out.swaps += action != state.active ? 1 : 0;
    state = env.after(state, action);
  }
  return out;
}

double ratio(double a, double b) { return b > 0 ? a / b : 0.0; }

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
template <class Value>
Interval bootstrap(const StreamEnv& env, const std::vector<StreamScore>& scores, Value value) {
  std::vector<std::pair<double, double>> sums;  // of each cluster: value, tokens
  for (const auto& [source, members] : clusters(env, scores)) {
    std::pair<double, double> sum;
    for (const std::size_t i : members) {
      sum.first += value(i);
      sum.second += scores[i].tokens;
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

Score evaluate(const StreamEnv& env, Split split, const Selector& selector,
               const EvaluateOptions& options) {
  Score out;
  StreamScore sum;
  for (const std::size_t stream : env.streams(split)) {
    if (options.kind && env.table().streams[stream].kind != *options.kind) continue;
    const StreamScore s = run(env, stream, selector, options.lag);
    sum.tokens += s.tokens;
    sum.gain += s.gain;
    sum.regret += s.regret;
    sum.covered_tokens += s.covered_tokens;
    sum.covered_gain += s.covered_gain;
    sum.steps += s.steps;
    sum.right += s.right;
    sum.uncovered += s.uncovered;
    sum.abstained += s.abstained;
    sum.swaps += s.swaps;
    sum.base += s.base;
    out.streams.push_back(s);
  }
  const auto steps = static_cast<double>(sum.steps);
  out.mean_gain = ratio(sum.gain, sum.tokens);
  out.regret = ratio(sum.regret, sum.tokens);
  out.accuracy = ratio(static_cast<double>(sum.right), steps);
  out.abstention = ratio(static_cast<double>(sum.abstained), static_cast<double>(sum.uncovered));
  out.swaps_per_100 = ratio(100.0 * static_cast<double>(sum.swaps), sum.tokens);
  out.covered_gain = ratio(sum.covered_gain, sum.covered_tokens);
  out.base_share = ratio(static_cast<double>(sum.base), steps);
  out.ci95 = bootstrap(env, out.streams, [&](std::size_t i) { return out.streams[i].gain; });
  return out;
}

Interval paired_difference(const StreamEnv& env, const Score& a, const Score& b) {
  MEMSLOT_CHECK(a.streams.size() == b.streams.size());
  return bootstrap(env, a.streams, [&](std::size_t i) {
    MEMSLOT_CHECK(a.streams[i].stream == b.streams[i].stream);
    return a.streams[i].gain - b.streams[i].gain;
  });
}

}  // namespace memslot
