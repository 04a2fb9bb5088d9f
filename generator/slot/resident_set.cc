#include "generator/slot/resident_set.h"

#include <algorithm>
#include <deque>
#include <string>

namespace memslot {

struct ResidentSet::Impl {
  struct Entry {
    std::shared_ptr<const LoadedMemory> memory;
    std::size_t bytes = 0;
    std::uint64_t used = 0;  // tick of the last touch
    int pins = 0;
    // Held elsewhere too: active in a session, or about to be.
    bool evictable() const { return pins == 0 && memory.use_count() == 1; }
  };
  struct Change {
    std::uint64_t epoch = 0;
    ResidentKey key;
  };
  static constexpr std::size_t kMaxHistory = 4096;

  void changed(const ResidentKey& key) {
    history.push_back({++epoch, key});
    if (history.size() > kMaxHistory) history.pop_front();
  }
  void drop(std::map<ResidentKey, Entry>::iterator it) {
    held -= it->second.bytes;
    changed(it->first);
    entries.erase(it);
  }
  std::size_t evictable_bytes(const ResidentKey& except) const {
    std::size_t sum = 0;
    for (const auto& [key, entry] : entries) {
      if (key != except && entry.evictable()) sum += entry.bytes;
    }
    return sum;
  }
  void evict_oldest(const ResidentKey& except) {
    auto oldest = entries.end();
    for (auto it = entries.begin(); it != entries.end(); ++it) {
      if (it->first == except || !it->second.evictable()) continue;
      if (oldest == entries.end() || it->second.used < oldest->second.used) oldest = it;
    }
    MEMSLOT_CHECK(oldest != entries.end());
    drop(oldest);
    ++evictions;
  }

  mutable std::mutex mutex;
  std::size_t limit = 0;
  std::size_t held = 0;
  std::uint64_t evictions = 0;
  std::uint64_t tick = 0, epoch = 1;  // epochs start above 0, which means "nothing known"
  std::map<ResidentKey, Entry> entries;
  std::deque<Change> history;
};

ResidentSet::ResidentSet(std::size_t budget_bytes) : impl_(std::make_unique<Impl>()) {
  impl_->limit = budget_bytes;
}
ResidentSet::~ResidentSet() = default;

std::shared_ptr<const LoadedMemory> ResidentSet::find(const ResidentKey& key) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->entries.find(key);
  if (it == impl_->entries.end()) return nullptr;
  it->second.used = ++impl_->tick;
  return it->second.memory;
}

Status ResidentSet::insert(const ResidentKey& key, std::shared_ptr<const LoadedMemory> memory) {
  MEMSLOT_CHECK(memory != nullptr);
  const std::size_t bytes = memory->bytes();
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->entries.find(key);
  const std::size_t replaced = found == impl_->entries.end() ? 0 : found->second.bytes;
  const std::size_t fixed = impl_->held - replaced - impl_->evictable_bytes(key);
  if (fixed + bytes > impl_->limit) {
    return Error{ErrorCode::kNoSpace,
                 "resident memories: expected room for " + std::to_string(bytes) +
                     " bytes, found " +
                     std::to_string(impl_->limit - std::min(impl_->limit, fixed)) +
                     " of a budget of " + std::to_string(impl_->limit)};
  }
  while (impl_->held - replaced + bytes > impl_->limit) impl_->evict_oldest(key);
  Impl::Entry& entry = impl_->entries[key];  // keeps the pins of one that is replaced
  impl_->held += bytes - replaced;
  entry.memory = std::move(memory);
  entry.bytes = bytes;
  entry.used = ++impl_->tick;
  if (replaced == 0) impl_->changed(key);
  return ok();
}

void ResidentSet::erase(const ResidentKey& key) {
  const std::lock_guard lock(impl_->mutex);
  if (const auto it = impl_->entries.find(key); it != impl_->entries.end()) impl_->drop(it);
}

void ResidentSet::pin(const ResidentKey& key) {
  const std::lock_guard lock(impl_->mutex);
  if (const auto it = impl_->entries.find(key); it != impl_->entries.end()) ++it->second.pins;
}

void ResidentSet::unpin(const ResidentKey& key) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->entries.find(key);
  if (it != impl_->entries.end() && it->second.pins > 0) --it->second.pins;
}

ResidentChanges ResidentSet::changes_since(std::uint64_t epoch) const {
  const std::lock_guard lock(impl_->mutex);
  ResidentChanges changes;
  changes.epoch = impl_->epoch;
  // Change number e is needed for every e > epoch; the history's first is the oldest one kept.
  const bool known = epoch > 0 && epoch <= impl_->epoch &&
                     (epoch == impl_->epoch ||
                      (!impl_->history.empty() && impl_->history.front().epoch <= epoch + 1));
  if (!known) {
    for (const auto& [key, entry] : impl_->entries) changes.added.push_back(key);
    return changes;
  }
  changes.base_epoch = epoch;
  std::map<ResidentKey, bool> touched;
  for (const auto& change : impl_->history) {
    if (change.epoch > epoch) touched[change.key] = true;
  }
  // A key's changes alternate, but the receiver treats both lists as sets, so the end state is
  // enough.
  for (const auto& [key, unused] : touched) {
    (impl_->entries.contains(key) ? changes.added : changes.removed).push_back(key);
  }
  return changes;
}

std::size_t ResidentSet::bytes() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->held;
}
std::size_t ResidentSet::budget() const { return impl_->limit; }
std::size_t ResidentSet::size() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->entries.size();
}
std::uint64_t ResidentSet::evictions() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->evictions;
}

}  // namespace memslot
