#pragma once
// Nearest-key search within one namespace and one slot: whitened, normalised keys of many memories.
//
// Below kExactKeys a search looks at every key; up to kScannedKeys at every key's code
// (key_codes.h), and the best of those are scored exactly. Above, an HNSW graph proposes and the
// proposals are scored exactly. Updates mark the old keys as gone; what is kept is made anew when
// half of it is gone.
//
// Threads: one at a time.
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "controller/step/key_codes.h"

namespace memslot {

inline constexpr std::size_t kExactKeys = 2000;
inline constexpr std::size_t kScannedKeys = std::size_t{1} << 18;

class KeyShard {
 public:
  using Owner = std::uint32_t;  // a memory, numbered by the caller

  // `scanned`: kScannedKeys, but for tests.
  explicit KeyShard(std::uint32_t dim, std::size_t scanned = kScannedKeys);
  ~KeyShard();
  KeyShard(KeyShard&&) noexcept;
  KeyShard& operator=(KeyShard&&) noexcept;

  // Replaces the owner's keys by `rows` (n, dim), each of length 1 or 0. n may be 0.
  void set(Owner owner, std::span<const float> rows);
  void erase(Owner owner);

  struct Hit {
    Owner owner = 0;
    float best = 0;  // largest dot product of the query with the owner's keys
  };
  // Adds up to `k` owners to `out`, best first, each once.
  void search(std::span<const float> query, std::size_t k, std::vector<Hit>& out) const;
  // The largest dot product over this owner's keys; 0 without keys.
  float best_key(Owner owner, std::span<const float> query) const;

  std::size_t keys() const { return live_; }
  enum class Method { kExact, kScan, kGraph };
  Method method() const;

 private:
  struct Graph;
  void add_row(Owner owner, std::span<const float> row);
  void compact();
  void update_graph();
  std::vector<Hit> proposals(std::span<const float> query, std::size_t k) const;

  std::uint32_t dim_;
  std::size_t scanned_;
  std::size_t live_ = 0;
  std::vector<float> rows_;    // (slots, dim), gone ones included
  std::vector<Owner> owners_;  // per row; kGone where gone
  std::unordered_map<Owner, std::vector<std::uint32_t>> rows_of_;  // live rows of each owner
  KeyCodes codes_;                                                 // of all rows, until there is
  std::unique_ptr<Graph> graph_;                                   // a graph; null before
};

}  // namespace memslot
