#pragma once
// What another policy would have chosen, on the text as it was recorded: it is asked at every
// decision of a trace, and its choices take the course that the recorded ones took (each counts
// from the step that was advised by it; one that came too late or did not load for the recorded
// policy does not for this one either).
//
// It is asked with what was recorded but for what follows from its own earlier choices:
//
//   own        is current, steps since the last swap, what it made resident; the swap cost of a
//              learned one is its own.
//   recorded   candidates, similarities, uses, gains, ages; entropy and surprise, which were those
//              of the recorded memories; draws (seed, session and step of the trace).
//   stands in  for the similarity over the longer window, which rules do not record: the one over
//              the shorter. Said in `notes`.
//
// A learned policy compares keys in its own whitening: it is refused where the recorded
// similarities are of another.
//
// Errors:  kMismatch: no policy chose the recorded steps, decisions without their features, a
//          learned policy for another model, layer or whitening; kNotFound: a decision that the
//          trace lacks, a candidate's version that is gone, a fixed policy's memory that was no
//          candidate.
// Threads: any; it reads the bank.
#include <string>
#include <vector>

#include "controller/replay/asked_policy.h"
#include "shared/trace/reader.h"
#include "storage/memory_bank.h"

namespace memslot {

struct PolicyChoices {
  struct Change {
    std::uint64_t step = 0;
    std::uint32_t slot = 0;
    MemoryRef memory;  // id empty: base
  };
  std::uint64_t decisions = 0;     // that it was asked
  std::uint64_t otherwise = 0;     // of those, that it decided otherwise
  std::vector<Change> changes;     // where another memory had been active, by step and slot
  std::vector<std::string> notes;  // what was not as this policy would have been asked live
};

// REQUIRES: the trace has no damage and no gap between its steps.
Result<PolicyChoices> choices_of(const AskedPolicy& policy, const trace::Trace& trace,
                                 MemoryBank& bank, const Clock& clock, TimePoint deadline);

}  // namespace memslot
