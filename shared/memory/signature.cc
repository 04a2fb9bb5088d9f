#include "shared/memory/signature.h"

namespace memslot {
namespace {

std::string short_digest(const Sha256& digest) {
  return digest.is_zero() ? "-" : digest.hex().substr(0, 12);
}

}  // namespace

std::string_view mlp_form_name(MlpForm form) {
  switch (form) {
    case MlpForm::kSwiGlu: return "swiglu";
    case MlpForm::kGeluTanh: return "gelu_tanh";
  }
  return "unknown";
}

Result<MlpForm> parse_mlp_form(std::string_view name) {
  for (const auto form : {MlpForm::kSwiGlu, MlpForm::kGeluTanh}) {
    if (name == mlp_form_name(form)) return form;
  }
  return invalid("mlp form", "swiglu or gelu_tanh", name);
}

std::string SlotSignature::text() const {
  return std::string(memory_kind_name(kind)) + "@" + std::to_string(layer) + " " +
         std::string(mlp_form_name(form)) + " " + std::to_string(d_model) + "x" +
         std::to_string(d_ff) + " model " + short_digest(model) + " outer " + short_digest(outer);
}

Status check_signature(const SlotSignature& slot, const SlotSignature& memory) {
  if (slot.model != memory.model) {
    return mismatch("signature model digest", slot.model.hex(), memory.model.hex());
  }
  if (slot.layer != memory.layer) return mismatch("signature layer", slot.layer, memory.layer);
  if (slot.kind != memory.kind) {
    return mismatch("signature kind", memory_kind_name(slot.kind), memory_kind_name(memory.kind));
  }
  if (slot.form != memory.form) {
    return mismatch("signature mlp form", mlp_form_name(slot.form), mlp_form_name(memory.form));
  }
  if (slot.d_model != memory.d_model) {
    return mismatch("signature d_model", slot.d_model, memory.d_model);
  }
  if (slot.d_ff != memory.d_ff) return mismatch("signature d_ff", slot.d_ff, memory.d_ff);
  if (slot.outer != memory.outer) {
    return mismatch("signature outer-parameter digest", slot.outer.hex(), memory.outer.hex());
  }
  return ok();
}

}  // namespace memslot
