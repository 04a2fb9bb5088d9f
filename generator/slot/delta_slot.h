#pragma once
// Kind `delta`: the base MLP plus a gated fast-weight memory that the delta rule writes.
// Schlag et al. 2021, arXiv:2102.11174; the layer as in Yang et al. 2024, arXiv:2406.06484.
//
//   q, k, v = silu(conv4(W x));  q, k := x / sqrt(sum x^2 + 1e-6) per head;  beta = sigma(W_b x) c
//   u = beta (v - S^T k);  S += k u^T;  o = S^T (K^-1/2 q)                 (per head, token by
//   token) y = MLP(x) + g * W_o(RMSNorm(o) [* silu(W_g x)])
//
// c is beta_scale; g is the slot gate (a vector of D, folded into W_o when loaded): at 0 the output
// is exactly the base MLP's while the state goes on. Payloads: layout/delta.h. All recurrences in
// f32; reading in one piece or token by token, with the state saved and loaded anywhere, gives the
// same bits.
//
// Threads: DeltaMemory is immutable after load(); a DeltaState belongs to one session.
#include "generator/slot/slot_run.h"
#include "shared/memory/layout/delta.h"

namespace memslot {

struct DeltaState {
  Buffer s;     // f32 [H, K, V]
  Buffer conv;  // f32 [2 H K + H V, 4]: of q, k, v
  std::int64_t position = 0;
};

class DeltaMemory {
 public:
  using State = DeltaState;

  // kMismatch where `outer` is null or not what the payload's signature names.
  static Result<DeltaMemory> load(const MemoryPayload& payload, const MemoryPayload* outer,
                                  Backend& backend, DType weights);
  const DeltaShape& shape() const { return shape_; }
  std::size_t bytes() const;
  DeltaState start(Backend& backend) const;
  void forward(const SlotRun& run, DeltaState& state) const;
  Result<MemoryPayload> save(Backend& backend, const DeltaState& state) const;
  Result<DeltaState> restore(Backend& backend, const MemoryPayload& payload) const;

 private:
  std::int64_t channels() const { return 2 * shape_.keys() + shape_.values(); }
  Status load_outer(const MemoryPayload& outer, Backend& backend, DType weights);
  void normalise(Backend& backend, Matrix convolved) const;
  Matrix read_out(const SlotRun& run, ConstMatrix projected, Matrix o) const;

  SlotSignature signature_;
  DeltaShape shape_;
  float beta_scale_ = 1, norm_eps_ = 0;
  std::shared_ptr<const PackedWeight> in_;   // [2 H K + H V (+ H V gate) + H beta, D]
  std::shared_ptr<const PackedWeight> out_;  // g * W_o [D, H V]
  Buffer conv_, key_norm_, o_norm_;
  DeltaStateValues stored_;  // as the loaded version has it
};

}  // namespace memslot
