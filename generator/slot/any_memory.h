#pragma once
// The closed set of memory kinds in device memory: a concept that each satisfies, the variant, and
// the one switch over MemoryKind (load_any). Everything else visits the variant.
//
// Threads: a loaded memory is immutable; states and runs belong to the session's strand.
#include <concepts>
#include <cstddef>
#include <variant>

#include "generator/slot/delta_slot.h"
#include "generator/slot/lora_slot.h"
#include "generator/slot/mlp_slot.h"
#include "generator/slot/slot_run.h"
#include "shared/memory/payload.h"

namespace memslot {

// State: what one session has of its own of this kind, copied from the loaded version; Stateless if
// nothing changes.
template <class M>
concept DeviceMemory = std::movable<M> && std::movable<typename M::State> &&
    requires(const M& memory, const MemoryPayload& payload, const MemoryPayload* outer,
             Backend& backend, DType weights, const SlotRun& run, typename M::State& state) {
  { M::load(payload, outer, backend, weights) } -> std::same_as<Result<M>>;
  { memory.bytes() } -> std::same_as<std::size_t>;
  { memory.start(backend) } -> std::same_as<typename M::State>;
  { memory.forward(run, state) } -> std::same_as<void>;
  { memory.save(backend, state) } -> std::same_as<Result<MemoryPayload>>;
  { memory.restore(backend, payload) } -> std::same_as<Result<typename M::State>>;
};

struct AnyMemory {
  std::variant<MlpMemory, LoraMemory, DeltaMemory> kind;
};
using AnyState = std::variant<Stateless, DeltaState>;

static_assert(DeviceMemory<MlpMemory> && DeviceMemory<LoraMemory> && DeviceMemory<DeltaMemory>);

// The payload in device memory, its maps packed as `weights`. `outer` only for kinds that have
// outer parameters. Layout errors as the kind's view gives them; kNotSupported for a kind that this
// build cannot run; kNoSpace.
Result<AnyMemory> load_any(const MemoryPayload& payload, const MemoryPayload* outer,
                           Backend& backend, DType weights);

}  // namespace memslot
