#pragma once
// Nearest-key search within one namespace and one slot: whitened keys of many memories (R reduced
// and W full dimensions, rl/whitening.h).
//
// Up to kExactKeys a search compares every key over all W dimensions. Above, keys are proposed by
// their R first ones, up to kScannedKeys by looking through all codes (key_codes.h), beyond by an
// HNSW graph, and the proposals ranked over all W; of the memories that come out first (kCompleted)
// every key is then compared, so that their `best` is that of a search of everything.
//
// Updates mark the old keys as gone; what is kept is made anew when half of it is gone.
//
// Threads: one at a time.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "controller/step/key_codes.h"
#include "rl/bf16_product.h"
#include "rl/whitening.h"
#include "shared/base/error.h"
#include "shared/base/huge_pages.h"

namespace memslot {

inline constexpr std::size_t kExactKeys = 256;
inline constexpr std::size_t kScannedKeys = std::size_t{1} << 18;
inline constexpr std::size_t kCompleted = 8;

class KeyShard {
 public:
  using Owner = std::uint32_t;  // a memory, numbered by the caller

  // `scanned`: kScannedKeys, but for tests.
  KeyShard(std::uint32_t white_dim, std::uint32_t reduced_dim, std::size_t scanned = kScannedKeys);
  ~KeyShard();
  KeyShard(KeyShard&&) noexcept;
  KeyShard& operator=(KeyShard&&) noexcept;

  // Replaces the owner's keys by n ones: `white` (n, W) bf16 and `reduced` (n, R), rows of length 1
  // or less. n may be 0.
  void set(Owner owner, std::span<const std::uint16_t> white, std::span<const float> reduced);
  void erase(Owner owner);

  struct Hit {
    Owner owner = 0;
    float best = 0;  // largest product of the query with the owner's keys, over W dimensions
  };
  // Adds up to `k` owners to `out`, best first, each once.
  void search(const Whitened& query, std::size_t k, std::vector<Hit>& out) const;
  // The same of one owner, over all of its keys; 0 without keys.
  float best_key(Owner owner, std::span<const float> white) const;

  // What index_files.h keeps: all rows, gone ones included; an owner's, which are one behind the
  // other (none: it has no keys); and the graph (REQUIRES: method() is kGraph) as a file of
  // hnswlib's, not synced. kIo.
  std::span<const std::uint16_t> white() const { return white_; }
  std::span<const float> reduced() const { return reduced_; }
  struct Run {
    Owner owner = 0;
    std::uint32_t first = 0, count = 0;
  };
  std::optional<Run> run_of(Owner owner) const;
  Status save_graph(const std::string& path) const;
  // A shard of them; rows of no run are gone ones. `graph`: of save_graph(), or "". kCorruption: it
  // does not fit together.
  static Result<KeyShard> restore(std::uint32_t white_dim, std::uint32_t reduced_dim,
                                  std::span<const std::uint16_t> white,
                                  std::span<const float> reduced, std::span<const Run> runs,
                                  const std::string& graph, std::size_t scanned = kScannedKeys);

  std::size_t keys() const { return live_; }
  enum class Method { kExact, kScan, kGraph };
  Method method() const;

 private:
  struct Graph;
  void add_row(Owner owner, std::span<const std::uint16_t> white, std::span<const float> reduced);
  void forget(std::size_t row);
  void compact();
  void update_graph();
  Status load_graph(const std::string& path);
  void prefetch(std::size_t row) const;
  const std::uint16_t* white_row(std::size_t row) const { return white_.data() + row * white_dim_; }
  float best_key(Owner owner, const Bf16Product& product) const;
  std::vector<Hit> proposals(const Whitened& query, const Bf16Product& product,
                             std::size_t k) const;
  std::vector<std::size_t> nearest_rows(const Whitened& query, std::size_t count) const;

  std::uint32_t white_dim_, reduced_dim_;
  std::size_t scanned_;
  std::size_t live_ = 0;
  template <class T>
  using Rows = std::vector<T, HugePages<T>>;
  Rows<std::uint16_t> white_;  // (slots, W) bf16, gone ones included
  Rows<float> reduced_;        // (slots, R)
  std::vector<Owner> owners_;  // per row; kGone where gone
  std::unordered_map<Owner, std::vector<std::uint32_t>> rows_of_;  // live rows of each owner
  KeyCodes codes_;                // of all rows, until there is a graph
  std::unique_ptr<Graph> graph_;  // null before
};

}  // namespace memslot
