#pragma once
// The learned policy beside the rules and references, on the streams of one split of a gain table.
//
//   base          never a memory
//   random        any memory, uniform
//   nearest       the nearest key's memory; window and threshold have the highest mean gain on the
//                 validation streams, in the same mode
//   wise          WISE's activation rule
//   audition      the best of the K candidates on the previous step (K runs of the model a step)
//   lagged_oracle the best of all memories on the previous step
//   oracle        the best of all memories on this one
//
// Several checkpoints are several seeds of one training: the policy's figures are their mean, and
// intervals are of that mean.
//
// Modes: `recompute` is what the table holds; `async` has every choice in effect one step later;
// `activated`, where the cache of earlier tokens stays as other memories made it, is measured by a
// session that follows the choices: without such measurements it is absent, with the reason. There
// a step's net gain with base is what the session lost or won against base over the whole prefix.
//
// Errors:  kInvalidArgument (no checkpoint, a split without streams), kMismatch (checkpoints of
//          another model, layer or whitening, or that differ among themselves), kNotFound
//          (measurements that lack a schedule).
// Threads: pure functions.
#include <map>
#include <string>

#include "rl/checkpoint.h"
#include "rl/evaluate.h"

namespace memslot {

// What is active at each decision of a stream.
struct Schedule {
  std::size_t stream = 0;
  std::vector<std::int32_t> actions;
  auto operator<=>(const Schedule&) const = default;
};
// Nats per token at each decision: log p as the session computed it minus that of a base run.
using MeasuredGains = std::map<Schedule, std::vector<float>>;

struct CompareOptions {
  Split split = Split::kTest;
  const MeasuredGains* activated = nullptr;
};

struct NearestSetting {
  std::uint32_t window_tokens = 32;
  float threshold = 0;
  double validation_gain = 0;
};

struct Compared {
  std::string name;
  Score score;
  double lead = 0;  // the policy's mean gain minus this one's
  Interval lead_ci95;
};

// One mode, or one kind of stream.
struct Section {
  std::string name;
  std::string absent;  // why there are no figures; "": there are
  NearestSetting nearest;
  std::vector<Compared> selectors;  // the policy first
  std::vector<Score> seeds;         // the policy's, one a checkpoint
  const Compared* find(std::string_view selector) const;
};

// A bound that the project holds itself to.
struct Target {
  std::string name;
  double figure = 0, bound = 0;
  bool at_least = true, met = false;
};

struct Comparison {
  Section recompute, activated, async, prompt, continuation, control;
  double covered_lead = 0;  // of the policy over nearest, on covered steps
  Interval covered_ci95;
  bool tie = false;                           // within 2 % there
  std::map<std::string, double> decision_us;  // median; of those that need no model to choose
  std::vector<Target> targets;                // of the mean over seeds
  std::vector<bool> seeds_meet_targets;       // one a checkpoint
};

// Windows that nearest is tuned over, in tokens.
inline constexpr std::uint32_t kTunedWindows[] = {16, 32, 48, 64};
// The threshold with the highest mean gain on the validation streams, in the environment's window.
NearestSetting tune_nearest(const StreamEnv& env, std::uint32_t lag = 0);

Result<Comparison> compare(const GainTable& table, const std::vector<Checkpoint>& checkpoints,
                           const CompareOptions& options);

// The schedules that `activated` needs measured, each once.
Result<std::vector<Schedule>> schedules(const GainTable& table,
                                        const std::vector<Checkpoint>& checkpoints, Split split);

}  // namespace memslot
