#pragma once
// Kind `lora`: the base MLP with low-rank corrections of its maps.
//
//   h = gate_up x + s [B_gate (A_gate x); B_up (A_up x)];  y = down a(h) + s B_down (A_down a(h))
//   s = alpha / r, folded into B when loaded. Payload: layout/lora.h.
//
// The rank is padded with zeros to a multiple of kRankBlock, so that small ranks run the same code
// of the matrix library (and are row-invariant with it).
//
// Threads: immutable after load().
#include "generator/slot/slot_run.h"
#include "shared/memory/layout/lora.h"

namespace memslot {

class LoraMemory {
 public:
  using State = Stateless;
  static constexpr std::int64_t kRankBlock = 16;

  static Result<LoraMemory> load(const MemoryPayload& payload, const MemoryPayload* outer,
                                 Backend& backend, DType weights);
  static Result<LoraMemory> load(const LoraValues& values, MlpForm form, std::int64_t d_model,
                                 std::int64_t d_ff, Backend& backend, DType weights);
  std::size_t bytes() const;
  Stateless start(Backend&) const { return {}; }
  void forward(const SlotRun& run, Stateless& state) const;
  Result<MemoryPayload> save(Backend& backend, const Stateless& state) const;
  Result<Stateless> restore(Backend& backend, const MemoryPayload& payload) const;

 private:
  MlpForm form_ = MlpForm::kSwiGlu;
  std::int64_t padded_ = 0;                            // rank, padded
  std::shared_ptr<const PackedWeight> a_in_;           // [2 padded, D]: gate, up; GELU [padded, D]
  std::shared_ptr<const PackedWeight> b_gate_, b_up_;  // [F, padded]
  std::shared_ptr<const PackedWeight> a_down_, b_down_;  // [padded, F], [D, padded]
};

}  // namespace memslot
