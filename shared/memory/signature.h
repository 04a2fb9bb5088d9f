#pragma once
// What a memory fits: it loads only into a slot whose signature is equal.
//
// The payload's dtype is not part of it (it is in the payload's header and converted on load), nor
// are a kind's free sizes (a LoRA's rank), which the payload carries.
#include <cstdint>
#include <string>

#include "shared/base/digest.h"
#include "shared/memory/kind.h"

namespace memslot {

enum class MlpForm : std::uint8_t {  // values are on disk and on the wire; append only
  kSwiGlu = 1,                       // down(silu(gate(x)) * up(x)), no biases
  kGeluTanh = 2,                     // c_proj(gelu_tanh(c_fc(x) + b) ) + b
};
std::string_view mlp_form_name(MlpForm form);  // "swiglu", "gelu_tanh"
Result<MlpForm> parse_mlp_form(std::string_view name);

struct SlotSignature {
  Sha256 model;            // of the model file, or of a folder's safetensors in name order
  std::int32_t layer = 0;  // counted from 0
  MemoryKind kind = MemoryKind::kMlp;
  MlpForm form = MlpForm::kSwiGlu;
  std::int32_t d_model = 0;  // D
  std::int32_t d_ff = 0;     // F
  Sha256 outer;              // outer parameters' digest; all zero for kinds that have none

  friend bool operator==(const SlotSignature&, const SlotSignature&) = default;
  std::string text()
      const;  // one line, for messages: "lora@22 swiglu 576x1536 model 7f3a... outer -"
};

// ok, or kMismatch naming the first differing field with expected (slot) and found (memory).
Status check_signature(const SlotSignature& slot, const SlotSignature& memory);

}  // namespace memslot
