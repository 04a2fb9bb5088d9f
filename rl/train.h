#pragma once
// Offline training from a gain table: rollouts on its training streams, REINFORCE on them, a look
// at the validation streams every so often, and the best parameters seen there.
//
//   prior       the scorer begins as nearest key with the threshold that is worth most on
//               validation, drawn as sharply as `reinforce.prior.sharpness` says; its threshold is
//               not read
//   warm start  `imitation` optimizer steps towards the lagged oracle (the best action of the
//               previous step)
//   an update   `streams` training streams drawn without regard to order, `rollouts` of each. Each
//               drawing hides some memories from its rollouts: all those of a source with
//               probability hide_source, and any one with hide_memory. A training stream then comes
//               with other rivals every time and often without the memories that cover it, so that
//               the few training sources teach less about themselves and more about abstaining
//   a look      before the first update and after every `look_every` ones
//   the end     after `updates` of them, rounded up to a look, or after `patience` looks without a
//               better value on validation: mean gain - margin * share of steps with a memory
//
// Reproducible bit for bit: the same table, options and seed give the same checkpoint, also where
// the training was interrupted and resumed. Every draw is a counter's, so that a checkpoint with
// the optimizer's state is all there is to keep.
//
// Errors:  kInvalidArgument (options out of range; a table without training streams, memories or
//          keys), kMismatch (a state of another table or of other options), what the learner
//          answers.
// Threads: one at a time. The table must outlive the training.
#include <optional>

#include "rl/evaluate.h"
#include "rl/reinforce.h"

namespace memslot {

// The defaults take two minutes on one core (docs/performance.md tells what they reach). No warm
// start: on text that no memory covers the lagged oracle follows the best of many noisy gains and
// hardly ever takes base, and what imitates it has to find abstention again. Many episodes an
// update: what is left to learn after the prior is worth a few hundredths of a nat, less than the
// noise of a hundred of them. No discount's horizon: without a swap cost a choice changes what the
// next steps show, not what they earn. Rank 1: a richer match learns its training sources by heart.
struct TrainOptions {
  ReinforceOptions reinforce{.learning_rate = 3e-3f,
                             .gamma = 0.0f,
                             .entropy_bonus = 0.01f,
                             .entropy_decay = 0.985f,
                             .averaging = 0.97f,
                             .prior = {.sharpness = 40.0f}};
  // The margin: on text that no memory covers a wrong one costs little and the noise of its gain is
  // larger, so that abstaining would hardly be learned.
  EnvOptions env{.candidates = 32, .window_tokens = 32, .swap_cost = 0.0f, .margin = 0.12f};
  std::uint32_t rank = 1, hidden = 24;  // of the scorer
  std::uint32_t streams = 64, rollouts = 8;
  float hide_source = 0.1f, hide_memory = 0.3f;
  std::uint32_t updates = 400, imitation = 0;
  std::uint32_t look_every = 20, patience = 20;
};

// Every option within its bounds. kInvalidArgument names the first that is not.
Status check_options(const TrainOptions& options);

// One look at the validation streams.
struct TrainPoint {
  std::uint64_t update = 0;  // since the warm start
  UpdateReport report;       // means over the updates since the last look; zeros at the first
  Score validation;
  // Share of the steps of validation's control text at which base is active; none without such
  // text.
  std::optional<double> control_base;
  double steps_per_second = 0;  // of the environment, learning included
  bool best = false;
};

class Training {
 public:
  // `table_digest` names the table's bytes. `state`, if not null, is what state() gave.
  static Result<std::unique_ptr<Training>> begin(const GainTable& table, std::string table_digest,
                                                 TrainOptions options,
                                                 const Checkpoint* state = nullptr);
  virtual ~Training() = default;

  virtual bool done() const = 0;
  // One optimizer step, or the first look: a point where validation was looked at.
  // REQUIRES: not done().
  virtual Result<std::optional<TrainPoint>> advance() = 0;

  virtual std::uint64_t imitated() const = 0;  // steps of the warm start
  virtual std::uint64_t updates() const = 0;   // steps after it
  virtual double best_gain() const = 0;        // of best() on validation; 0 before the first look
  virtual std::uint64_t best_update() const = 0;
  virtual const Checkpoint& best() const = 0;  // to publish; empty before the first look
  virtual Checkpoint state() const = 0;        // to resume from
  virtual const StreamEnv& env() const = 0;
};

struct TrainResult {
  Checkpoint best, state;
  std::vector<TrainPoint> curve;
};

// All of it at once.
Result<TrainResult> train(const GainTable& table, const TrainOptions& options);

}  // namespace memslot
