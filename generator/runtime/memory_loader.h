#pragma once
// From a payload's bytes to a memory that a slot can run: parse, verify (digest, signature, finite
// numbers), pack, keep in the resident set. Whatever fails, nothing that is active changes.
//
// Threads: any; loads run side by side with the model.
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <map>

#include "generator/slot/resident_set.h"
#include "shared/base/bytes.h"

namespace memslot {

class MemoryLoader {
 public:
  struct Counters {
    std::uint64_t loads = 0, failures = 0, bytes = 0;
  };
  // Gives the outer parameters of a stateful kind at a slot; may ask the controller.
  using OuterSource = std::function<Result<std::shared_ptr<const MemoryPayload>>(std::size_t slot,
                                                                                 MemoryKind kind)>;

  MemoryLoader(const Gpt& gpt, const Sha256& model_digest, ResidentSet& residents);
  void set_outer_source(OuterSource source) { outer_ = std::move(source); }

  // Null if it is not resident, or not these bytes.
  std::shared_ptr<const LoadedMemory> resident(std::uint32_t slot, const MemoryRef& ref,
                                               const Sha256& sha256);
  // kCorruption, kMismatch, kNotSupported, kNoSpace. A memory that does not fit the resident budget
  // is loaded all the same, and lives as long as a session runs it.
  Result<std::shared_ptr<const LoadedMemory>> load(std::uint32_t slot, const MemoryRef& ref,
                                                   const Sha256& sha256, const SharedBytes& bytes);

  // load() without looking for it among the residents, and without keeping it there.
  Result<std::shared_ptr<const LoadedMemory>> verify(std::uint32_t slot, const MemoryRef& ref,
                                                     const Sha256& sha256,
                                                     const SharedBytes& bytes);

  ResidentSet& residents() { return residents_; }
  const Sha256& model_digest() const { return model_digest_; }
  const Gpt& gpt() const { return gpt_; }
  Counters counters() const;

 private:
  const Gpt& gpt_;
  const Sha256 model_digest_;
  ResidentSet& residents_;
  OuterSource outer_;
  mutable std::mutex mutex_;
  Counters counters_;
};

}  // namespace memslot
