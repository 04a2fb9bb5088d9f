#pragma once
// A learner's hold on the compute gate, given back every few tens of milliseconds where somebody
// else wants it.
//
//   GateSlices slices(gate);        // takes the gate
//   ...operation...; slices.breathe();   ...operation...; slices.breathe();
//
// Threads: one.
#include <chrono>
#include <optional>

#include "generator/backend/thread_team.h"
#include "generator/learn/compute_gate.h"

namespace memslot {

class GateSlices {
 public:
  explicit GateSlices(ComputeGate& gate) : gate_(gate) { take(); }
  ~GateSlices() { release_thread_team(); }
  GateSlices(const GateSlices&) = delete;
  GateSlices& operator=(const GateSlices&) = delete;

  // Runs fn without the gate: reading files, packing, telling others; nothing that computes.
  template <class Fn>
  decltype(auto) outside(Fn&& fn) {
    struct Back {
      GateSlices& slices;
      ~Back() { slices.take(); }
    };
    drop();
    const Back back{*this};
    return fn();
  }

  // Between two operations: lets others in if this slice has lasted long enough.
  void breathe() {
    if (std::chrono::steady_clock::now() - since_ < kSlice) return;
    // Alone, it keeps its threads as well: a new team would cost every slice a moment.
    if (gate_.wanted()) {
      drop();
      take();
    }
  }

 private:
  static constexpr std::chrono::milliseconds kSlice{12};
  // Without the team: decoding would pay for it (thread_team.h).
  void drop() {
    release_thread_team();
    hold_.reset();
  }
  void take() {
    hold_.emplace(gate_, Work::kLearn);
    since_ = std::chrono::steady_clock::now();
  }
  ComputeGate& gate_;
  std::optional<ComputeGate::Hold> hold_;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace memslot
