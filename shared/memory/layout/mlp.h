#pragma once
// Payload layout of an `mlp` memory: all weights of one MLP, which replace the base MLP at the
// slot.
//
//   SwiGLU:  y = down(silu(gate(x)) * up(x))
//            tensors "gate" [F, D], "up" [F, D], "down" [D, F]
//   GELU:    y = c_proj(gelu_tanh(c_fc(x) + c_fc_bias)) + c_proj_bias
//            tensors "c_fc" [F, D], "c_fc_bias" [F], "c_proj" [D, F], "c_proj_bias" [D]
// Every linear map is (out, in), row-major. No scalars. D and F are the signature's.
//
// Owner:   MlpView borrows from the payload, which must outlive it.
// Threads: immutable after parse(); share freely.
#include <cstdint>
#include <vector>

#include "shared/memory/payload.h"

namespace memslot {

struct MlpView {
  MlpForm form = MlpForm::kSwiGlu;
  std::int64_t d_model = 0;   // D
  std::int64_t d_ff = 0;      // F
  ConstHostTensor gate;       // [F, D]; empty for GELU
  ConstHostTensor up;         // [F, D]; GELU: c_fc
  ConstHostTensor down;       // [D, F]; GELU: c_proj
  ConstHostTensor up_bias;    // [F]; empty for SwiGLU
  ConstHostTensor down_bias;  // [D]; empty for SwiGLU

  // kMismatch: another kind, tensors missing or surplus, or a shape that is not the signature's.
  static Result<MlpView> parse(const MemoryPayload& payload);
};

// The same values in f32, owned. Unused ones are empty.
struct MlpValues {
  std::vector<float> gate, up, down, up_bias, down_bias;
};

MlpValues to_values(const MlpView& view);
// REQUIRES: signature.kind == kMlp and sizes that fit it. kInvalidArgument over the payload limit.
Result<MemoryPayload> make_mlp_payload(const SlotSignature& signature, DType dtype,
                                       const MlpValues& values);

// A tensor of any float dtype as f32.
std::vector<float> to_f32(const ConstHostTensor& tensor);

}  // namespace memslot
