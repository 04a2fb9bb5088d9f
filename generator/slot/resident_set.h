#pragma once
// The loaded memories a generator keeps, least recently used first out, within a budget in bytes.
// Active memories are held by their sessions' shared_ptr and by pins: eviction never takes them.
//
// The set has an epoch that grows with every change, and reports deltas between epochs (the wire's
// ResidentDelta); history is bounded, an epoch too old is answered with the whole set.
//
// Threads: any; one mutex.
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "generator/slot/slot.h"

namespace memslot {

struct ResidentKey {
  std::uint32_t slot = 0;
  MemoryRef ref;  // with its version
  friend auto operator<=>(const ResidentKey&, const ResidentKey&) = default;
  friend bool operator==(const ResidentKey&, const ResidentKey&) = default;
};

struct ResidentChanges {
  std::uint64_t epoch = 0;
  std::uint64_t base_epoch = 0;  // 0: `added` is the whole set
  std::vector<ResidentKey> added, removed;
};

class ResidentSet {
 public:
  explicit ResidentSet(std::size_t budget_bytes);
  ~ResidentSet();

  std::shared_ptr<const LoadedMemory> find(const ResidentKey& key);  // null if absent; touches it
  // Evicts unpinned others to fit. kNoSpace if it cannot (then it is not inserted).
  Status insert(const ResidentKey& key, std::shared_ptr<const LoadedMemory> memory);
  void erase(const ResidentKey& key);
  // Reported residents stay until the directive that may use them, or its deadline.
  void pin(const ResidentKey& key);
  void unpin(const ResidentKey& key);
  ResidentChanges changes_since(std::uint64_t epoch) const;

  std::size_t bytes() const;
  std::size_t budget() const;
  std::size_t size() const;
  std::uint64_t evictions() const;  // to make room, since the start

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace memslot
