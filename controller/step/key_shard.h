#pragma once
// Nearest-key search within one namespace and one slot: whitened, normalised keys of many memories.
//
// Below kExactKeys a search looks at every key. Above, an HNSW graph proposes and the proposals are
// scored exactly. Updates mark the old keys as gone; the graph is made anew when half of it is
// gone.
//
// Threads: one at a time.
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace memslot {

inline constexpr std::size_t kExactKeys = 2000;

class KeyShard {
 public:
  using Owner = std::uint32_t;  // a memory, numbered by the caller

  explicit KeyShard(std::uint32_t dim);
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
  bool exact() const { return graph_ == nullptr; }

 private:
  struct Graph;
  void add_row(Owner owner, std::span<const float> row);
  void compact();
  void update_graph();

  std::uint32_t dim_;
  std::size_t live_ = 0;
  std::vector<float> rows_;    // (slots, dim), gone ones included
  std::vector<Owner> owners_;  // per row; kGone where gone
  std::unordered_map<Owner, std::vector<std::uint32_t>> rows_of_;  // live rows of each owner
  std::unique_ptr<Graph> graph_;                                   // null while the search is exact
};

}  // namespace memslot
