#pragma once
// Payloads on their way to generators, least recently used first out, bounded in bytes.
//
// Threads: one at a time.
#include <cstdint>
#include <list>
#include <map>

#include "shared/base/bytes.h"
#include "storage/memory_bank.h"

namespace memslot {

class PayloadCache {
 public:
  // `bank` must outlive the cache. max_bytes 0: nothing is kept.
  PayloadCache(MemoryBank& bank, std::size_t max_bytes) : bank_(bank), max_bytes_(max_bytes) {}

  // From memory, or verified from the bank. Errors: MemoryBank::load_payload().
  Result<SharedBytes> get(const MemoryVersion& version, TimePoint deadline);
  void forget(const MemoryRef& ref);  // every version of it

  std::size_t bytes() const { return bytes_; }
  std::size_t max_bytes() const { return max_bytes_; }
  std::uint64_t hits() const { return hits_; }
  std::uint64_t misses() const { return misses_; }

 private:
  struct Item {
    MemoryRef ref;
    std::string token;
    SharedBytes payload;
  };
  void drop(std::list<Item>::iterator item);

  MemoryBank& bank_;
  const std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::uint64_t hits_ = 0, misses_ = 0;
  std::list<Item> items_;  // most recently used first
  std::map<std::pair<MemoryRef, std::string>, std::list<Item>::iterator> by_version_;  // and token
};

}  // namespace memslot
