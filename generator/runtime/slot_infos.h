#pragma once
// The slots that a model offers, as the wire names them.
#include <vector>

#include "generator/model/gpt.h"
#include "shared/wire/messages_link.h"

namespace memslot {

inline std::vector<wire::SlotInfo> slot_infos(const Gpt& gpt) {
  std::vector<wire::SlotInfo> out;
  for (const int layer : gpt.options().slot_layers) {
    out.push_back({layer, gpt.config().mlp_form, gpt.config().d_model, gpt.config().d_ff});
  }
  return out;
}

}  // namespace memslot
