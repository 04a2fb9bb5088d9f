#pragma once
// How well a selector chooses, on the streams of a gain table.
//
//   mean gain   sum over steps of tokens * net / sum of tokens              (nats per token)
//   regret      the oracle's mean gain minus the selector's
//   accuracy    share of steps with the oracle's action
//   abstention  share of steps of uncovered text at which base is chosen
//   swaps       changes of what is active, per 100 tokens
//
// An interval is the 95 % percentile bootstrap over clusters of streams that begin with the same
// source (Efron and Tibshirani 1993), paired where two selectors are compared: both are drawn with
// the same clusters.
//
// Threads: pure functions.
#include <cstdint>
#include <optional>
#include <vector>

#include "rl/selectors.h"

namespace memslot {

struct EvaluateOptions {
  std::uint32_t lag = 0;           // 1: a choice is in effect one step later (async)
  std::optional<StreamKind> kind;  // only these streams
};

// Sums over a stream's decisions.
struct StreamScore {
  std::size_t stream = 0;
  double tokens = 0, gain = 0, regret = 0, covered_tokens = 0, covered_gain = 0;
  std::uint64_t steps = 0, right = 0, uncovered = 0, abstained = 0, swaps = 0, base = 0;
};

struct Interval {
  double low = 0, high = 0;
};

struct Score {
  double mean_gain = 0, regret = 0, accuracy = 0, abstention = 0, swaps_per_100 = 0;
  double covered_gain = 0;  // mean gain over steps that a memory covers
  double base_share = 0;    // steps at which base is chosen
  Interval ci95;            // of the mean gain
  std::vector<StreamScore> streams;
};

Score evaluate(const StreamEnv& env, Split split, const Selector& selector,
               const EvaluateOptions& options = {});

// The difference of mean gains, a minus b. REQUIRES: of the same streams.
Interval paired_difference(const StreamEnv& env, const Score& a, const Score& b);

}  // namespace memslot
