#pragma once
// Payload layouts of a `delta` memory: a fast-weight matrix per head, written by the delta rule.
//
// Two payloads, both of kind `delta`. H heads, K key width, V value width, N = 4 the convolution's
// width:
//
//   outer parameters (signature.outer all zero), trained once per model and slot:
//     "q_proj" [H K, D]  "k_proj" [H K, D]  "v_proj" [H V, D]  "o_proj" [D, H V]  "b_proj" [H, D]
//     "q_conv" [H K, N]  "k_conv" [H K, N]  "v_conv" [H V, N]  (column N-1 = the current token)
//     "o_norm" [V]  "slot_gate" [D]  and, where the scalar output_gate is 1, "g_proj" [H V, D]
//     scalars "heads", "key_dim", "value_dim", "output_gate" (0 or 1), "beta_scale" (1; 2 allows
//     negative eigenvalues), "norm_eps"
//   state (signature.outer = SHA-256 of the outer payload's bytes), always f32:
//     "S:f32" [H, K, V]  "conv_q:f32" [H K, N]  "conv_k:f32" [H K, N]  "conv_v:f32" [H V, N]
//     (the last N inputs of each convolution, oldest first)  scalar "position" (tokens read)
//
// What is computed from them: generator/slot/delta_slot.h.
//
// Limits:  heads, key_dim, value_dim from 1 to 1024, H K and H V up to 8192; position below 2^53.
// Owner:   views borrow from the payload, which must outlive them.
// Threads: immutable after parse(); share freely.
#include <cstdint>
#include <vector>

#include "shared/memory/payload.h"

namespace memslot {

inline constexpr std::int64_t kDeltaConvWidth = 4;

struct DeltaShape {
  std::int64_t heads = 0;      // H
  std::int64_t key_dim = 0;    // K
  std::int64_t value_dim = 0;  // V
  bool output_gate = false;
  std::int64_t keys() const { return heads * key_dim; }      // H K
  std::int64_t values() const { return heads * value_dim; }  // H V
  friend bool operator==(const DeltaShape&, const DeltaShape&) = default;
};

// kCorruption if it is not within the limits above.
Status check_delta_shape(const DeltaShape& shape);

struct DeltaOuterView {
  DeltaShape shape;
  double beta_scale = 1;
  double norm_eps = 1e-5;
  ConstHostTensor q_proj, k_proj, v_proj, o_proj, b_proj, g_proj;
  ConstHostTensor q_conv, k_conv, v_conv, o_norm, slot_gate;

  // kMismatch: another kind, a state instead of outer parameters, tensors missing or surplus, or
  // shapes that do not fit. kCorruption: scalars out of limits.
  static Result<DeltaOuterView> parse(const MemoryPayload& payload);
};

struct DeltaStateView {
  std::int64_t position = 0;
  ConstHostTensor s, conv_q, conv_k, conv_v;

  // Errors as above; `shape` comes from the outer parameters.
  static Result<DeltaStateView> parse(const MemoryPayload& payload, const DeltaShape& shape);
};

struct DeltaOuterValues {
  DeltaShape shape;
  double beta_scale = 1;
  double norm_eps = 1e-5;
  std::vector<float> q_proj, k_proj, v_proj, o_proj, b_proj, g_proj;
  std::vector<float> q_conv, k_conv, v_conv, o_norm, slot_gate;
};

struct DeltaStateValues {
  std::int64_t position = 0;
  std::vector<float> s, conv_q, conv_k, conv_v;
  static DeltaStateValues zero(const DeltaShape& shape);
};

DeltaOuterValues to_values(const DeltaOuterView& view);
DeltaStateValues to_values(const DeltaStateView& view);

// `signature.outer` must be zero. REQUIRES: kind kDelta and sizes that fit.
Result<MemoryPayload> make_delta_outer(const SlotSignature& signature, DType dtype,
                                       const DeltaOuterValues& values);
// `signature.outer` must be the outer payload's digest. REQUIRES: kind kDelta and sizes that fit.
Result<MemoryPayload> make_delta_state(const SlotSignature& signature, const DeltaShape& shape,
                                       const DeltaStateValues& values);

// Outer parameters drawn from `seed` (projections and convolutions N(0, 0.02), norm 1), slot gate
// 0, and the empty state that belongs to them: the slot then gives exactly the base MLP's output
// while its state follows the text.
struct FreshDelta {
  MemoryPayload outer;
  MemoryPayload state;
};
Result<FreshDelta> make_fresh_delta(SlotSignature signature, const DeltaShape& shape, DType dtype,
                                    std::uint64_t seed);

}  // namespace memslot
