#pragma once
// Payload layout of a `lora` memory: rank-r corrections of the linear maps of one MLP.
//
//   W x  becomes  W x + (alpha / r) B (A x)        Hu et al. 2021, arXiv:2106.09685
//
// SwiGLU: gate, up and down; GELU: up (c_fc) and down (c_proj). For each of them, NAME being
// "gate", "up" or "down", tensors "NAME.A" [r, inputs] and "NAME.B" [outputs, r]; scalars "rank",
// "alpha".
//
// Limits:  1 <= rank <= min(kMaxLoraRank, D, F); 0 < alpha <= 1e6.
// Owner:   LoraView borrows from the payload, which must outlive it.
// Threads: immutable after parse(); share freely.
#include <cstdint>
#include <vector>

#include "shared/memory/payload.h"

namespace memslot {

inline constexpr std::int64_t kMaxLoraRank = 256;

struct LoraView {
  struct Map {
    ConstHostTensor a;  // [r, inputs]
    ConstHostTensor b;  // [outputs, r]
  };
  MlpForm form = MlpForm::kSwiGlu;
  std::int64_t d_model = 0;
  std::int64_t d_ff = 0;
  std::int64_t rank = 0;
  double alpha = 0;    // the applied scale is alpha / rank
  Map gate, up, down;  // gate is empty for GELU

  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
  // kMismatch: another kind, tensors missing or surplus, or a shape that does not fit. kCorruption:
  // rank or alpha out of limits.
  static Result<LoraView> parse(const MemoryPayload& payload);
};

// The same values in f32, owned. Unused ones are empty.
struct LoraValues {
  struct Map {
    std::vector<float> a, b;
  };
  std::int64_t rank = 0;
  double alpha = 0;
  Map gate, up, down;
};

LoraValues to_values(const LoraView& view);
// REQUIRES: signature.kind == kLora and sizes that fit it. kInvalidArgument over the payload limit.
Result<MemoryPayload> make_lora_payload(const SlotSignature& signature, DType dtype,
                                        const LoraValues& values);

}  // namespace memslot
