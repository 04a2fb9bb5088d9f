#pragma once
// What stands in for a layer's MLP in one session.
//
//   LoadedMemory   a version in device memory, verified and ready; shared by sessions (resident
//   set). SessionSlot    which LoadedMemory is active in one session and one slot, and, for a
//   stateful
//                  kind, that session's own state.
//
//   stage (load) -> verify (digest, signature, finite) -> activate; on any failure the old memory
//   stays.
//
// A new kind touches: MemoryKind, shared/memory/layout/<kind>, generator/slot/<kind>_slot, the
// variant AnyMemory in any_memory.h, a row of the test table and a golden.
//
// Threads: load() from any thread; SessionSlot from its session's strand (the compute thread).
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "generator/model/gpt.h"
#include "shared/memory/payload.h"
#include "shared/memory/record.h"

namespace memslot {

struct AnyMemory;  // std::variant of the kinds' device forms: any_memory.h

class LoadedMemory {
 public:
  // `slot_signature` is what the slot expects of this kind. The payload's bytes must hash to
  // `sha256`. `outer`: the outer parameters' payload for kinds that have them, else null.
  // kCorruption, kMismatch, kNotSupported, kNoSpace.
  static Result<std::shared_ptr<const LoadedMemory>> load(
      const MemoryPayload& payload, const MemoryRef& ref, const Sha256& sha256,
      const SlotSignature& slot_signature, const MemoryPayload* outer, const Gpt& gpt);
  ~LoadedMemory();

  const MemoryRef& ref() const;
  const Sha256& sha256() const;
  MemoryKind kind() const;
  std::size_t bytes() const;  // device memory held
  const AnyMemory& any() const;

 private:
  struct Impl;
  explicit LoadedMemory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A copy of a stateful slot's state at a token position, to go back to.
struct SlotSnapshot {
  std::int64_t position = 0;
  std::vector<std::byte> state;  // the kind's payload bytes (MSM1)
};

class SessionSlot {
 public:
  SessionSlot(Gpt& gpt, std::size_t slot);
  ~SessionSlot();
  SessionSlot(SessionSlot&&) noexcept;
  SessionSlot& operator=(SessionSlot&&) noexcept;

  // Null: base. A stateful memory starts from its stored state. Cannot fail: load() did all checks.
  void activate(std::shared_ptr<const LoadedMemory> memory);
  const std::shared_ptr<const LoadedMemory>& active() const;

  // Computes call.y. For a stateful kind the state advances over the rows in order.
  void forward(const SlotCall& call);

  bool dirty() const;  // the state differs from the loaded version
  // The state now, as a payload of the same signature. kNotSupported for stateless kinds.
  Result<MemoryPayload> snapshot() const;
  Status restore(const MemoryPayload& state);  // kMismatch
  // The memory that `other` has active, in a state of its own that is equal to the other's.
  Status copy_from(const SessionSlot& other);
  // What names the memory in KV spans: "" base, the payload's SHA-256, plus state position if
  // stateful.
  std::string digest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The signature that slot `slot` of this model expects of a memory of `kind`.
SlotSignature expected_signature(const Gpt& gpt, const Sha256& model_digest, std::size_t slot,
                                 MemoryKind kind, const Sha256& outer = {});

}  // namespace memslot
