#include "generator/runtime/memory_loader.h"

#include "generator/backend/thread_team.h"
#include "shared/base/log.h"

namespace memslot {

MemoryLoader::MemoryLoader(const Gpt& gpt, const Sha256& model_digest, ResidentSet& residents)
    : gpt_(gpt), model_digest_(model_digest), residents_(residents) {}

std::shared_ptr<const LoadedMemory> MemoryLoader::resident(std::uint32_t slot, const MemoryRef& ref,
                                                           const Sha256& sha256) {
  auto found = residents_.find({slot, ref});
  if (found != nullptr && found->sha256() != sha256) return nullptr;
  return found;
}

Result<std::shared_ptr<const LoadedMemory>> MemoryLoader::load(std::uint32_t slot,
                                                               const MemoryRef& ref,
                                                               const Sha256& sha256,
                                                               const SharedBytes& bytes) {
  if (auto found = resident(slot, ref, sha256)) return found;
  auto loaded = verify(slot, ref, sha256, bytes);
  release_thread_team();  // packing made one
  {
    const std::lock_guard lock(mutex_);
    ++(loaded ? counters_.loads : counters_.failures);
    if (loaded) counters_.bytes += bytes->size();
  }
  if (!loaded) return loaded.error().with_context(ref.text());
  const Status kept = residents_.insert({slot, ref}, loaded.value());
  if (!kept) log::debug("{} runs without being resident: {}", ref.text(), kept.error().message);
  return loaded;
}

Result<std::shared_ptr<const LoadedMemory>> MemoryLoader::verify(std::uint32_t slot,
                                                                 const MemoryRef& ref,
                                                                 const Sha256& sha256,
                                                                 const SharedBytes& bytes) {
  const auto slots = gpt_.options().slot_layers.size();
  if (slot >= slots) return mismatch("slot", "0 to " + std::to_string(slots - 1), slot);
  if (bytes == nullptr) return corrupt("payload", "bytes", "none");
  MEMSLOT_TRY(const MemoryPayload payload, MemoryPayload::parse(*bytes));
  std::shared_ptr<const MemoryPayload> outer;
  if (is_stateful(payload.kind())) {
    if (!outer_) return mismatch("outer parameters", "a source of them", "none");
    MEMSLOT_TRY(outer, outer_(slot, payload.kind()));
  }
  const Sha256 outer_digest = outer == nullptr ? Sha256{} : memslot::sha256(outer->bytes());
  return LoadedMemory::load(
      payload, ref, sha256,
      expected_signature(gpt_, model_digest_, slot, payload.kind(), outer_digest), outer.get(),
      gpt_);
}

MemoryLoader::Counters MemoryLoader::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace memslot
