#pragma once
// How well a selector chooses, on the streams of a gain table.
//
//   mean gain   sum over steps of tokens * net / sum of tokens              (nats per token)
//   regret      the oracle's mean gain minus the selector's
//   accuracy    share of steps with the oracle's action
//   abstention  share of steps of uncovered text at which base is chosen
//   swaps       changes of what is active, per 100 tokens
//   NLL         of uncovered text with what was active, relative to base's, minus 1
//
// An interval is the 95 % percentile bootstrap over clusters of streams that begin with the same
// source (Efron and Tibshirani 1993), paired where two selectors are compared: both are drawn with
// the same clusters.
//
// Threads: pure functions.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rl/selectors.h"

namespace memslot {

struct EvaluateOptions {
  std::uint32_t lag = 0;           // 1: a choice is in effect one step later (async)
  std::optional<StreamKind> kind;  // only these streams
};

// Sums over a stream's decisions; means of them over several selectors.
struct StreamScore {
  std::size_t stream = 0;
  double tokens = 0, gain = 0, regret = 0, covered_tokens = 0, covered_gain = 0;
  double steps = 0, right = 0, uncovered = 0, abstained = 0, swaps = 0, base = 0;
  // Negative log-probability of uncovered text, with what was active and with base: of the corpus'
  // own sources, and of other prose.
  double corpus_nll = 0, corpus_base_nll = 0, prose_nll = 0, prose_base_nll = 0;
};

struct Interval {
  double low = 0, high = 0;
};

struct Score {
  double mean_gain = 0, regret = 0, accuracy = 0, abstention = 0, swaps_per_100 = 0;
  double covered_gain = 0;  // mean gain over steps that a memory covers
  double base_share = 0;    // steps at which base is active
  double corpus_nll = 0;    // of uncovered text of the corpus, relative to base's, minus 1
  double prose_nll = 0;     // the same of other prose
  Interval ci95;            // of the mean gain
  std::vector<StreamScore> streams;
};

// What is active at each decision of a stream.
std::vector<std::int32_t> roll_out(const StreamEnv& env, std::size_t stream,
                                   const Selector& selector, std::uint32_t lag = 0);
// `gains`, if not empty: the gain at each decision as a session measured it, in place of the
// table's; base's is then not 0 where the session's cache came from a memory.
// REQUIRES: an action (and a gain) for every decision.
StreamScore score_actions(const StreamEnv& env, std::size_t stream,
                          std::span<const std::int32_t> actions, std::span<const float> gains = {});
Score summarise(const StreamEnv& env, std::vector<StreamScore> streams);

Score evaluate(const StreamEnv& env, Split split, const Selector& selector,
               const EvaluateOptions& options = {});

// The mean over selectors, stream by stream. REQUIRES: at least one; of the same streams.
Score mean_score(const StreamEnv& env, std::span<const Score> scores);

// The difference of mean gains, a minus b. REQUIRES: of the same streams.
Interval paired_difference(const StreamEnv& env, const Score& a, const Score& b);
// The same over the steps that a memory covers only.
Interval covered_difference(const StreamEnv& env, const Score& a, const Score& b);

}  // namespace memslot
