#pragma once
// Learns a memory of kind `delta`: the source is read through a slot by an empty memory, and the
// state that this leaves is the memory. No step of an optimizer, no segments, no keys.
//
// Statistics: the memory is loaded as a session would load it, as the state that a text begins
// with; then the source is read again (nll_after, recall, least activation) and the control texts
// (locality), beside base. Absent: steps, segments; locality without control texts; recall of a
// source of at most kRecallSkip tokens.
//
// Errors:  kInvalidArgument (layer, fewer than two tokens, more than the context),
//          kCancelled (`report` said no); those of the outer parameters.
// Threads: one, the learner's.
#include <optional>
#include <string>

#include "generator/learn/learner.h"
#include "generator/runtime/engine.h"
#include "generator/runtime/outer_parameters.h"
#include "generator/runtime/slot_reader.h"

namespace memslot {

class ReadThrough {
 public:
  using Report = std::function<bool(const LearnProgressReport&)>;

  // REQUIRES: the engine has a tokenizer. `texts` and `gate` are the learner's.
  ReadThrough(Engine& engine, OuterParameters& outer, const LearnTexts& texts, ComputeGate& gate)
      : engine_(engine), outer_(outer), texts_(texts), gate_(gate) {}

  // `layer`: of the slot; negative: the first.
  Result<LearnOutcome> learn(const wire::AssignLearn& job, int layer, const Report& report);

 private:
  struct Source;
  Result<std::size_t> slot_of(int layer) const;
  Result<LearnStats> measure(SlotReader& reader, const Source& source, const MemoryPayload& state,
                             const Report& report);
  Result<std::optional<double>> control_nll(SlotReader& reader,
                                            const std::shared_ptr<const LoadedMemory>& memory,
                                            const Report& report);

  Engine& engine_;
  OuterParameters& outer_;
  const LearnTexts& texts_;
  ComputeGate& gate_;
  std::optional<double> control_before_;  // of base, the same for every job
};

}  // namespace memslot
