#pragma once
// What a session that swapped in recompute mode is compared with.
//
// DESIGN, "KV consistency": a run that had the last memories all along. DESIGN, "Bits": where a
// row's bits depend on its batch (a backend that is not row-invariant), the same calls in the same
// order.
#include <memory>
#include <span>
#include <vector>

#include "generator/runtime/session.h"
#include "tests/learn/tiny_model.h"

namespace memslot::testing_support {

inline constexpr std::size_t kNoSwap = static_cast<std::size_t>(-1);

struct ScheduleEvent {
  int written = 0;               // tokens
  std::size_t lowest = kNoSwap;  // then a swap, from this slot up
};

// The session after reading `known` (the first `prompt` of them in one piece) with `active`, one
// entry per slot. `other`: for each slot some memory that is not the active one's base.
inline std::unique_ptr<Session> cold_run(
    Gpt& gpt, LogitsScratch& scratch, const SessionSettings& settings,
    std::span<const std::int32_t> known, std::size_t prompt, std::span<const SlotChange> active,
    std::span<const ScheduleEvent> schedule,
    std::span<const std::shared_ptr<const LoadedMemory>> other) {
  auto cold = must(Session::make(gpt, scratch, settings));
  must(cold->activate(active));
  const bool same_calls = !gpt.backend().info().row_invariant;
  must(cold->add_tokens(same_calls ? known.first(prompt) : known));
  while (!must(cold->prefill(Gpt::kMaxRows))) {
  }
  if (!same_calls) return cold;
  for (const ScheduleEvent& event : schedule) {
    must(cold->add_tokens(
        known.subspan(cold->tokens().size(), static_cast<std::size_t>(event.written))));
    for (int i = 0; i < event.written; ++i) must(cold->read(1));
    if (event.lowest == kNoSwap) continue;
    // Away and back: the same recompute calls, the same memories.
    const SlotChange& mine = active[event.lowest];
    const SlotChange away{event.lowest, mine.memory == nullptr ? other[event.lowest] : nullptr};
    must(cold->activate({&away, 1}));
    must(cold->activate({&mine, 1}));
  }
  return cold;
}

}  // namespace memslot::testing_support
