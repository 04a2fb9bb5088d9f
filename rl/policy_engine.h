#pragma once
// A learned policy ready to act, and the two things that need libtorch to make one or to go on
// learning it. Whoever runs policies gets them as functions, so that it need not link libtorch.
//
// Threads: values; a snapshot is immutable and shared freely (by every session that began with it).
#include <functional>
#include <memory>
#include <string>

#include "rl/checkpoint.h"
#include "rl/reinforce.h"
#include "rl/selection_policy.h"

namespace memslot {

struct PolicySnapshot {
  Checkpoint checkpoint;  // without the optimizer
  std::string digest;     // of the file that named it
  std::string space;      // digest of its whitening: what its similarities are measured in
  std::shared_ptr<const SelectionPolicy> policy;
};

struct PolicyEngine {
  std::function<Result<std::shared_ptr<const SelectionPolicy>>(const Checkpoint&)> make_policy;
  std::function<Result<std::unique_ptr<ReinforceLearner>>(const Checkpoint&, ReinforceOptions)>
      go_on_from;
};

// With libtorch; in memslot_rl_torch.
PolicyEngine torch_engine();

// Of a checkpoint's bytes. Beyond what parse() refuses: kNotSupported (the engine makes none),
// kMismatch (no whitening, a window or K that no session has).
Result<std::shared_ptr<const PolicySnapshot>> make_snapshot(const std::string& bytes,
                                                            const PolicyEngine& engine);

}  // namespace memslot
