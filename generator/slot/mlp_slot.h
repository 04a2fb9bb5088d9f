#pragma once
// Kind `mlp`: other weights of the same form in place of the base MLP. Equations: layout/mlp.h.
//
// Threads: immutable after load().
#include "generator/slot/slot_run.h"
#include "shared/memory/layout/mlp.h"

namespace memslot {

class MlpMemory {
 public:
  using State = Stateless;

  static Result<MlpMemory> load(const MemoryPayload& payload, const MemoryPayload* outer,
                                Backend& backend, DType weights);
  const MlpWeights& weights() const { return weights_; }
  std::size_t bytes() const;
  Stateless start(Backend&) const { return {}; }
  void forward(const SlotRun& run, Stateless& state) const;
  Result<MemoryPayload> save(Backend& backend, const Stateless& state) const;
  Result<Stateless> restore(Backend& backend, const MemoryPayload& payload) const;

 private:
  MlpWeights weights_;
};

// kNotSupported: the kind has no state to save or restore.
Error stateless(MemoryKind kind);

}  // namespace memslot
