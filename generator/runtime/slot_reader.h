#pragma once
// Reads texts with one memory in one slot, base in the others, and measures what it does there: how
// a stateful memory is learned from a text, and how it is judged.
//
//   nll      mean of -log p(token t | those before), t from 1
//   recall   share of arg max among the tokens from kRecallSkip on
//   change   least ||memory(x) - base(x)||_2 over the rows x that the slot saw
//
// Every text is read from position 0, the memory from its stored state. The last token is fed too:
// state() has read the whole text.
//
// Errors:  kNoSpace; what Gpt::forward answers (ids, context); kCancelled where `progress` says no.
// Threads: one, a learner's: it takes the compute gate slice by slice, behind decoding.
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "generator/learn/compute_gate.h"
#include "generator/model/gpt.h"
#include "generator/slot/slot.h"

namespace memslot {

class SlotReader {
 public:
  struct Figures {
    double nll_sum = 0;            // nats
    std::int64_t tokens = 0;       // that have a probability
    std::optional<double> recall;  // absent for a text of kRecallSkip tokens or fewer
    double change = 0;
    double nll() const { return tokens == 0 ? 0 : nll_sum / static_cast<double>(tokens); }
  };
  // Called without the gate every few tokens, with how many were read; false: stop.
  using Progress = std::function<bool(std::int64_t read)>;

  static Result<SlotReader> make(Gpt& gpt, std::size_t slot, ComputeGate& gate);

  // REQUIRES: at least one token. `memory` null: base.
  Result<Figures> read(std::span<const std::int32_t> ids,
                       std::shared_ptr<const LoadedMemory> memory, const Progress& progress);
  // Of the memory that read the last text. kNotSupported for stateless kinds and base.
  Result<MemoryPayload> state() const { return slots_[slot_].snapshot(); }

 private:
  SlotReader(Gpt& gpt, std::size_t slot, ComputeGate& gate);
  void forward(const SlotCall& call);
  Status score(std::span<const std::int32_t> targets, std::vector<std::int32_t>& best);

  Gpt& gpt_;
  std::size_t slot_;
  ComputeGate& gate_;
  std::vector<SessionSlot> slots_;
  SessionSlot base_;                // the slot's own MLP, to compare with
  Buffer hidden_, logits_, other_;  // (kRows, D), (kRows, V), (kRows, D) f32
  Figures figures_;
};

}  // namespace memslot
