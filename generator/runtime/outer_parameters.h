#pragma once
// The outer parameters of stateful kinds: one record per slot layer and seed in the bank, memory
// "outer/delta-l<layer>-s<seed>", fetched when first needed.
//
// Where the bank has none, they are made (shared/memory/layout/delta.h) and published; if another
// generator publishes first, its record is taken. They are made from the seed alone, so both are
// equal.
//
// Threads: any; the first caller for a slot asks the controller, the others wait for it.
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "generator/link/controller_link.h"
#include "generator/model/gpt.h"
#include "shared/memory/layout/delta.h"
#include "shared/memory/payload.h"

namespace memslot {

class OuterParameters {
 public:
  OuterParameters(const Gpt& gpt, const Sha256& model_digest, ControllerLink& link,
                  const Clock& clock, std::uint64_t seed);

  // kNotSupported for a kind other than delta; what the controller answers; kMismatch, kCorruption.
  Result<std::shared_ptr<const MemoryPayload>> get(std::size_t slot, MemoryKind kind);
  // The size of a fresh memory's state: one head per attention head, of its width.
  DeltaShape shape() const;

 private:
  Result<MemoryPayload> fetch_or_make(std::size_t slot);
  Result<MemoryPayload> fetch(std::uint64_t session, const MemoryRef& ref);
  Result<MemoryPayload> publish(std::uint64_t session, const MemoryRef& ref, std::size_t slot);
  TimePoint deadline() const;

  const Gpt& gpt_;
  const Sha256 model_digest_;
  ControllerLink& link_;
  const Clock& clock_;
  const std::uint64_t seed_;
  std::mutex mutex_;
  std::map<std::size_t, std::shared_ptr<const MemoryPayload>> known_;
};

}  // namespace memslot
