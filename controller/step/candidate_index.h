#pragma once
// Which memories of a bank could serve a step: nearest whitened keys, per namespace and slot.
//
// A *space* is what makes keys comparable and memories loadable in one place: model, layer and
// sizes. Each has its own statistics (whitening.h) and, per namespace, its own shard (key_shard.h),
// so that neither another namespace nor another model ever takes part in a search.
//
// The index is derived: keep it by index_keeper.h, which can make it from the bank at any time.
//
// Threads: one at a time. Pointers to an IndexedMemory live until the next upsert or erase.
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "controller/step/key_shard.h"
#include "rl/whitening.h"
#include "shared/base/digest.h"
#include "shared/base/error.h"
#include "shared/memory/record.h"

namespace memslot {

inline constexpr std::size_t kMaxCandidates = 32;  // K, base and the current memory included
// Of one memory: above it an even choice of its segments is searched, so that a long source does
// not crowd out the others. The mean key is over all.
inline constexpr std::uint32_t kMaxIndexedKeys = 32;

struct SpaceKey {
  Sha256 model;
  std::int32_t layer = 0;
  MlpForm form = MlpForm::kSwiGlu;
  std::int32_t d_model = 0;
  std::int32_t d_ff = 0;
  static SpaceKey of(const SlotSignature& signature);
  friend auto operator<=>(const SpaceKey&, const SpaceKey&) = default;
};

struct IndexedMemory {
  MemoryVersion version;  // the head
  std::uint32_t uses = 0;
  std::uint64_t gains = 0;      // steps with a measured gain
  double mean_net_gain = 0;     // nats per token, over `gains`
  std::uint64_t published = 0;  // how many memories had been published before it
  std::vector<float> mean_key;  // (R) of the reduced keys, length 1; empty without keys
};

class CandidateIndex {
 public:
  using Statistics = std::map<SpaceKey, Whitening>;

  // Statistics that a learned policy brought: for spaces of its model and layer (empty, -1: any)
  // that have the whitening's width. They stay whatever keys come.
  struct Pinned {
    std::string model;  // hex
    std::int32_t layer = -1;
    Whitening whitening;
    bool fits(const SpaceKey& space) const;
  };

  // A space that `statistics` lacks is fitted on the first keys that come to it.
  explicit CandidateIndex(Statistics statistics = {}, std::shared_ptr<const Pinned> pinned = {});

  // Makes `version` the memory's head, with `keys` (n, D) raw; n may be 0. Counts come from `like`.
  // Keys that are those it had stay where they are: putting them in anew is what costs.
  void upsert(const MemoryVersion& version, std::span<const float> keys,
              const IndexedMemory& like = {});
  void erase(std::string_view ns, std::string_view id);
  const IndexedMemory* find(std::string_view ns, std::string_view id) const;  // null if unknown
  void note_use(std::string_view ns, std::string_view id, const float* net_gain);  // null: unknown

  struct Hit {
    const IndexedMemory* memory = nullptr;
    float best_key = 0;  // over W dimensions
    float mean_key = 0;  // over R
  };
  // Whitened `hidden` (D); empty if the space has no statistics.
  Whitened query(const SpaceKey& space, std::span<const float> hidden) const;
  // Up to k memories of these namespaces, nearest first. `query` as query() gave it.
  std::vector<Hit> nearest(const SpaceKey& space, std::span<const std::string> namespaces,
                           const Whitened& query, std::size_t k) const;
  // Similarities of one memory, exact.
  Hit score(const IndexedMemory& memory, const Whitened& query) const;
  // Memories of these namespaces that fit the space, by namespace and id.
  std::vector<const IndexedMemory*> members(const SpaceKey& space,
                                            std::span<const std::string> namespaces) const;

  // Up to `count` of them with keys, evenly over the index, in a time that does not grow with it.
  std::vector<const IndexedMemory*> some_members(const SpaceKey& space,
                                                 std::span<const std::string> namespaces,
                                                 std::size_t count) const;

  // True where the keys of a space have outgrown its statistics.
  bool refit_due() const;
  // Where there are a quarter more (or less) than were fitted up to kSmallFit, twice (or half)
  // above.
  static bool outgrown(std::uint64_t fitted, std::uint64_t keys);
  static constexpr std::uint64_t kSmallFit = 1024;

  // --- a copy of it elsewhere (index_files.h) ---

  struct KeptShard {
    SpaceKey space;
    std::string ns;
    const KeyShard* keys = nullptr;  // until the next upsert or erase
  };
  // A memory of a shard, but for its keys' numbers.
  struct Kept {
    std::string id, token;   // of its version
    std::uint32_t keys = 0;  // all of them; those of the shard may be fewer
    Xxh128 keys_digest{};
    KeyShard::Run run;  // its owner: this index's own number
    std::vector<float> mean_key;
  };
  std::vector<KeptShard> shards() const;
  void each_kept(const KeptShard& shard, const std::function<void(const Kept&)>& use) const;
  // Gives a space the statistics that its first keys would bring, where these are known: pinned.
  void expect(const SpaceKey& space);
  // Puts them in as memories that still have to be adopted; a run's owner is not read. As an index
  // without memories of that shard. kCorruption (nothing changed): they do not fit together.
  struct KeptKeys {
    std::span<const std::uint16_t> white;
    std::span<const float> reduced;
    std::string graph;  // path, or ""
  };
  Status restore(const SpaceKey& space, const std::string& ns, const KeptKeys& keys,
                 std::vector<Kept> memories);
  // What was restored as this version is from now on as after upsert(version, its keys, like).
  // False: it was not, or is another.
  bool adopt(const MemoryVersion& version, const IndexedMemory& like);
  std::size_t drop_unadopted();  // erases what was restored and not adopted; how many

  std::size_t memories() const { return ids_.size(); }
  std::size_t keys() const;
  std::uint64_t publishes() const { return publishes_; }
  std::uint64_t keyings() const { return keyings_; }        // how often a memory's keys were put in
  const Whitening* whitening(const SpaceKey& space) const;  // null if unknown
  const std::string& whitening_digest(const SpaceKey& space) const;  // "" if unknown
  std::vector<SpaceKey> fitted_spaces() const;  // with statistics of their own keys
  // True where a space that the pinned statistics fit has others, or one that they do not fit
  // (null: any) is pinned to such.
  bool differs_from(const Pinned* pinned) const;

 private:
  struct Space {
    Whitening whitening;
    std::string digest;   // of the whitening
    bool pinned = false;  // never due to be fitted again
    std::uint64_t keys = 0;
    std::map<std::string, KeyShard, std::less<>> shards;  // by namespace
    std::map<std::pair<std::string, std::string>, KeyShard::Owner> members;
  };
  struct Entry {
    IndexedMemory memory;
    SpaceKey space;
    std::uint32_t keys = 0;
    Xxh128 keys_digest{};
    bool adopted = true;  // false: restored, of a version that may be another by now
  };
  KeyShard::Owner new_owner();
  void take(Entry& entry, const MemoryVersion& version, const IndexedMemory& like);
  bool revise(const MemoryVersion& version, const Xxh128& keys_digest, std::uint32_t keys,
              const IndexedMemory& like);
  static void set_whitening(Space& space, Whitening whitening, bool pinned);
  void index_keys(KeyShard::Owner owner, Space& space, std::span<const float> keys);
  Hit hit(KeyShard::Owner owner, float best, const Whitened& query) const;

  std::shared_ptr<const Pinned> pinned_;  // shared: one whitening for all indexes of a keeper
  std::map<SpaceKey, Space> spaces_;
  std::vector<std::unique_ptr<Entry>> entries_;  // by owner; null where free
  std::vector<KeyShard::Owner> free_;
  std::map<std::pair<std::string, std::string>, KeyShard::Owner, std::less<>> ids_;  // by (ns, id)
  std::uint64_t publishes_ = 0;
  std::uint64_t keyings_ = 0;
};

}  // namespace memslot
