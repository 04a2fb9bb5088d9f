#pragma once
// Offline training from a gain table: rollouts on its training streams, REINFORCE on them, a look
// at the validation streams every so often, and the best parameters seen there.
//
//   warm start  imitation of the lagged oracle (the best action of the previous step), optional
//   an update   `streams` training streams drawn without regard to order, `rollouts` of each
//   stop        `updates` of them, or `patience` looks without a better mean gain on validation
//
// Reproducible bit for bit: the same table, options and seed give the same checkpoint.
//
// Errors:  kInvalidArgument (a table without training streams, memories or keys), what the learner
//          answers.
// Threads: one at a time.
#include <functional>

#include "rl/evaluate.h"
#include "rl/reinforce.h"

namespace memslot {

struct TrainOptions {
  ReinforceOptions reinforce;
  EnvOptions env;
  std::uint32_t rank = 16, hidden = 64;  // of the scorer
  std::uint32_t streams = 16, rollouts = 4;
  std::uint32_t updates = 400, imitation = 100;
  std::uint32_t look_every = 20, patience = 8;
};

// One look at the validation streams.
struct TrainPoint {
  std::uint64_t update = 0;
  UpdateReport report;  // of the last update
  Score validation;
  double steps_per_second = 0;
  bool best = false;
};

struct TrainResult {
  Checkpoint best;    // to publish
  Checkpoint resume;  // with the optimizer, after the last update
  std::vector<TrainPoint> curve;
};

// `show` is told every look; false ends the training there.
Result<TrainResult> train(const GainTable& table, const TrainOptions& options,
                          const std::function<bool(const TrainPoint&)>& show);

}  // namespace memslot
