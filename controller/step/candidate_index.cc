#include "controller/step/candidate_index.h"

#include <algorithm>
#include <set>

#include "rl/whitened_keys.h"
#include "shared/base/error.h"

namespace memslot {
namespace {

std::pair<std::string, std::string> key_of(std::string_view ns, std::string_view id) {
  return {std::string(ns), std::string(id)};
}

// kMaxIndexedKeys of the rows (n, columns), n larger, evenly apart.
template <class T>
std::vector<T> even_choice(const std::vector<T>& rows, std::size_t columns) {
  const std::size_t n = columns == 0 ? 0 : rows.size() / columns;
  std::vector<T> out;
  for (std::size_t i = 0; n > 0 && i < kMaxIndexedKeys; ++i) {
    const auto from = rows.begin() + static_cast<std::ptrdiff_t>(i * n / kMaxIndexedKeys * columns);
    out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(columns));
  }
  return out;
}

}  // namespace

SpaceKey SpaceKey::of(const SlotSignature& s) {
  return {.model = s.model, .layer = s.layer, .form = s.form, .d_model = s.d_model, .d_ff = s.d_ff};
}

bool CandidateIndex::Pinned::fits(const SpaceKey& space) const {
  return (model.empty() || model == space.model.hex()) && (layer < 0 || layer == space.layer) &&
         whitening.dim() == static_cast<std::uint32_t>(space.d_model);
}

CandidateIndex::CandidateIndex(Statistics statistics, std::shared_ptr<const Pinned> pinned)
    : pinned_(std::move(pinned)) {
  for (auto& [key, whitening] : statistics) {
    const bool is_pinned = pinned_ != nullptr && pinned_->fits(key);
    set_whitening(spaces_[key], is_pinned ? pinned_->whitening : std::move(whitening), is_pinned);
  }
}

void CandidateIndex::set_whitening(Space& space, Whitening whitening, bool pinned) {
  space.whitening = std::move(whitening);
  space.digest = space.whitening.digest();
  space.pinned = pinned;
}

void CandidateIndex::expect(const SpaceKey& key) {
  if (pinned_ == nullptr || !pinned_->fits(key)) return;
  Space& space = spaces_[key];
  if (space.whitening.dim() == 0) set_whitening(space, pinned_->whitening, /*pinned=*/true);
}

void CandidateIndex::index_keys(KeyShard::Owner owner, Space& space, std::span<const float> keys) {
  Entry& entry = *entries_[owner];
  const auto dim = static_cast<std::uint32_t>(entry.memory.version.signature.d_model);
  entry.keys = dim == 0 ? 0 : static_cast<std::uint32_t>(keys.size() / dim);
  if (entry.keys == 0) return;
  ++keyings_;
  expect(entry.space);
  if (space.whitening.dim() == 0) {
    set_whitening(space, Whitening::fit(keys, dim, /*version=*/1), /*pinned=*/false);
  }
  space.keys += entry.keys;
  WhitenedKeys whitened = whiten_keys(space.whitening, keys);
  entry.memory.mean_key = std::move(whitened.mean);
  if (entry.keys > kMaxIndexedKeys) {
    whitened.white = even_choice(whitened.white, space.whitening.white_dim());
    whitened.reduced = even_choice(whitened.reduced, space.whitening.reduced_dim());
  }
  const std::string& ns = entry.memory.version.ref.ns;
  const auto shard =
      space.shards.try_emplace(ns, space.whitening.white_dim(), space.whitening.reduced_dim())
          .first;
  shard->second.set(owner, whitened.white, whitened.reduced);
}

// False where the memory is new, or its keys or its space are others.
bool CandidateIndex::revise(const MemoryVersion& version, const Xxh128& keys_digest,
                            std::uint32_t keys, const IndexedMemory& like) {
  const auto found = ids_.find(key_of(version.ref.ns, version.ref.id));
  if (found == ids_.end()) return false;
  Entry& entry = *entries_[found->second];
  if (entry.space != SpaceKey::of(version.signature) || entry.keys != keys ||
      entry.keys_digest != keys_digest) {
    return false;
  }
  take(entry, version, like);
  return true;
}

// The version that the entry's keys are of.
void CandidateIndex::take(Entry& entry, const MemoryVersion& version, const IndexedMemory& like) {
  std::vector<float> mean_key = std::move(entry.memory.mean_key);
  entry.adopted = true;
  entry.memory = like;
  entry.memory.version = version;
  entry.memory.published = ++publishes_;
  entry.memory.mean_key = std::move(mean_key);
}

KeyShard::Owner CandidateIndex::new_owner() {
  if (free_.empty()) {
    entries_.emplace_back();
    return static_cast<KeyShard::Owner>(entries_.size() - 1);
  }
  const KeyShard::Owner owner = free_.back();
  free_.pop_back();
  return owner;
}

void CandidateIndex::upsert(const MemoryVersion& version, std::span<const float> keys,
                            const IndexedMemory& like) {
  const Xxh128 digest = xxh128(std::as_bytes(keys));
  const auto dim = static_cast<std::size_t>(std::max(version.signature.d_model, 1));
  if (revise(version, digest, static_cast<std::uint32_t>(keys.size() / dim), like)) return;
  erase(version.ref.ns, version.ref.id);
  const KeyShard::Owner owner = new_owner();
  const SpaceKey key = SpaceKey::of(version.signature);
  entries_[owner] =
      std::make_unique<Entry>(Entry{.memory = like, .space = key, .keys_digest = digest});
  IndexedMemory& memory = entries_[owner]->memory;
  memory.version = version;
  memory.published = ++publishes_;
  memory.mean_key.clear();
  const auto name = key_of(version.ref.ns, version.ref.id);
  ids_[name] = owner;
  Space& space = spaces_[key];
  space.members[name] = owner;
  index_keys(owner, space, keys);
}

void CandidateIndex::erase(std::string_view ns, std::string_view id) {
  const auto found = ids_.find(key_of(ns, id));
  if (found == ids_.end()) return;
  const KeyShard::Owner owner = found->second;
  Space& space = spaces_[entries_[owner]->space];
  space.keys -= entries_[owner]->keys;
  space.members.erase(found->first);
  const auto shard = space.shards.find(ns);
  if (shard != space.shards.end()) shard->second.erase(owner);
  ids_.erase(found);
  entries_[owner].reset();
  free_.push_back(owner);
}

std::vector<CandidateIndex::KeptShard> CandidateIndex::shards() const {
  std::vector<KeptShard> out;
  for (const auto& [key, space] : spaces_) {
    for (const auto& [ns, shard] : space.shards) {
      if (shard.keys() > 0) out.push_back({key, ns, &shard});
    }
  }
  return out;
}

void CandidateIndex::each_kept(const KeptShard& shard,
                               const std::function<void(const Kept&)>& use) const {
  const auto& members = spaces_.at(shard.space).members;
  for (auto it = members.lower_bound({shard.ns, ""});
       it != members.end() && it->first.first == shard.ns; ++it) {
    const auto run = shard.keys->run_of(it->second);
    if (!run) continue;
    const Entry& entry = *entries_[it->second];
    use({.id = it->first.second,
         .token = entry.memory.version.token,
         .keys = entry.keys,
         .keys_digest = entry.keys_digest,
         .run = *run,
         .mean_key = entry.memory.mean_key});
  }
}

Status CandidateIndex::restore(const SpaceKey& key, const std::string& ns, const KeptKeys& keys,
                               std::vector<Kept> memories) {
  Space& space = spaces_[key];
  std::set<std::string_view> names;
  std::vector<KeyShard::Run> runs;
  for (const Kept& kept : memories) {
    if (ids_.contains(key_of(ns, kept.id)) || !names.insert(kept.id).second ||
        kept.mean_key.size() != space.whitening.reduced_dim()) {
      return corrupt("kept memory " + kept.id, "one of its name, with a mean key", "another");
    }
    runs.push_back({static_cast<KeyShard::Owner>(entries_.size() + runs.size()), kept.run.first,
                    kept.run.count});
  }
  MEMSLOT_TRY(KeyShard shard,
              KeyShard::restore(space.whitening.white_dim(), space.whitening.reduced_dim(),
                                keys.white, keys.reduced, runs, keys.graph));
  if (!space.shards.try_emplace(ns, std::move(shard)).second) {
    return corrupt("kept shard", "one of its namespace", "two");
  }
  for (Kept& kept : memories) {
    const auto owner = static_cast<KeyShard::Owner>(entries_.size());
    entries_.push_back(std::make_unique<Entry>());
    Entry& entry = *entries_.back();
    entry.space = key;
    entry.keys = kept.keys;
    entry.keys_digest = kept.keys_digest;
    entry.adopted = false;
    IndexedMemory& memory = entry.memory;
    memory.version.ref = {.ns = ns, .id = kept.id};
    memory.version.token = std::move(kept.token);
    memory.mean_key = std::move(kept.mean_key);
    const auto name = key_of(ns, kept.id);
    ids_[name] = owner;
    space.members[name] = owner;
    space.keys += kept.keys;
  }
  return ok();
}

bool CandidateIndex::adopt(const MemoryVersion& version, const IndexedMemory& like) {
  const auto found = ids_.find(key_of(version.ref.ns, version.ref.id));
  if (found == ids_.end()) return false;
  Entry& entry = *entries_[found->second];
  if (entry.adopted || entry.memory.version.token != version.token ||
      entry.space != SpaceKey::of(version.signature) || entry.keys != version.keys) {
    return false;
  }
  take(entry, version, like);
  return true;
}

std::size_t CandidateIndex::drop_unadopted() {
  std::vector<MemoryRef> left;
  for (const auto& entry : entries_) {
    if (entry != nullptr && !entry->adopted) left.push_back(entry->memory.version.ref);
  }
  for (const MemoryRef& ref : left) erase(ref.ns, ref.id);
  return left.size();
}

const IndexedMemory* CandidateIndex::find(std::string_view ns, std::string_view id) const {
  const auto found = ids_.find(key_of(ns, id));
  return found == ids_.end() ? nullptr : &entries_[found->second]->memory;
}

void CandidateIndex::note_use(std::string_view ns, std::string_view id, const float* net_gain) {
  const auto found = ids_.find(key_of(ns, id));
  if (found == ids_.end()) return;
  IndexedMemory& memory = entries_[found->second]->memory;
  ++memory.uses;
  if (net_gain == nullptr) return;
  ++memory.gains;
  memory.mean_net_gain += (*net_gain - memory.mean_net_gain) / static_cast<double>(memory.gains);
}

Whitened CandidateIndex::query(const SpaceKey& space, std::span<const float> hidden) const {
  const Whitening* whitening = this->whitening(space);
  if (whitening == nullptr || whitening->dim() != hidden.size()) return {};
  return whitening->whiten(hidden);
}

CandidateIndex::Hit CandidateIndex::hit(KeyShard::Owner owner, float best,
                                        const Whitened& query) const {
  const IndexedMemory& memory = entries_[owner]->memory;
  const std::vector<float>& reduced = query.reduced;
  const float mean = memory.mean_key.size() == reduced.size()
                         ? dot(memory.mean_key.data(), reduced.data(), reduced.size())
                         : 0.0f;
  return {&memory, best, mean};
}

std::vector<CandidateIndex::Hit> CandidateIndex::nearest(const SpaceKey& space,
                                                         std::span<const std::string> namespaces,
                                                         const Whitened& query,
                                                         std::size_t k) const {
  std::vector<Hit> out;
  const auto found = spaces_.find(space);
  if (found == spaces_.end() || query.empty()) return out;
  std::vector<KeyShard::Hit> hits;
  for (const std::string& ns : namespaces) {
    const auto shard = found->second.shards.find(ns);
    if (shard != found->second.shards.end()) shard->second.search(query, k, hits);
  }
  std::sort(hits.begin(), hits.end(), [](const KeyShard::Hit& a, const KeyShard::Hit& b) {
    return a.best != b.best ? a.best > b.best : a.owner < b.owner;
  });
  hits.resize(std::min(k, hits.size()));
  out.reserve(hits.size());
  for (const KeyShard::Hit& h : hits) out.push_back(hit(h.owner, h.best, query));
  return out;
}

CandidateIndex::Hit CandidateIndex::score(const IndexedMemory& memory,
                                          const Whitened& query) const {
  const MemoryRef& ref = memory.version.ref;
  const auto owner = ids_.find(key_of(ref.ns, ref.id));
  const auto space = spaces_.find(SpaceKey::of(memory.version.signature));
  MEMSLOT_CHECK(owner != ids_.end() && space != spaces_.end());
  const auto shard = space->second.shards.find(ref.ns);
  const bool searchable = shard != space->second.shards.end() &&
                          query.white.size() == space->second.whitening.white_dim();
  const float best = searchable ? shard->second.best_key(owner->second, query.white) : 0.0f;
  return hit(owner->second, best, query);
}

std::vector<const IndexedMemory*> CandidateIndex::members(
    const SpaceKey& space, std::span<const std::string> namespaces) const {
  std::vector<const IndexedMemory*> out;
  const auto found = spaces_.find(space);
  if (found == spaces_.end()) return out;
  for (const std::string& ns : namespaces) {
    const auto& members = found->second.members;
    for (auto it = members.lower_bound({ns, ""}); it != members.end() && it->first.first == ns;
         ++it) {
      out.push_back(&entries_[it->second]->memory);
    }
  }
  return out;
}

std::vector<const IndexedMemory*> CandidateIndex::some_members(
    const SpaceKey& space, std::span<const std::string> namespaces, std::size_t count) const {
  constexpr std::size_t kMostLookedAt = 20000;
  std::vector<const IndexedMemory*> out;
  const std::size_t stride = entries_.size() / kMostLookedAt + 1;
  for (std::size_t i = 0; i < entries_.size(); i += stride) {
    const Entry* const entry = entries_[i].get();
    if (entry == nullptr || entry->space != space || entry->memory.mean_key.empty()) continue;
    const std::string& ns = entry->memory.version.ref.ns;
    if (std::ranges::find(namespaces, ns) != namespaces.end()) out.push_back(&entry->memory);
  }
  if (out.size() <= count) return out;
  for (std::size_t i = 0; i < count; ++i) out[i] = out[i * out.size() / count];
  out.resize(count);
  return out;
}

bool CandidateIndex::outgrown(std::uint64_t fitted, std::uint64_t keys) {
  const std::uint64_t slack = fitted <= kSmallFit ? std::max<std::uint64_t>(fitted / 4, 1) : fitted;
  const std::uint64_t floor = fitted <= kSmallFit ? fitted - slack : fitted / 2;
  return keys >= fitted + slack || (keys > 0 && keys < floor);
}

bool CandidateIndex::refit_due() const {
  return std::ranges::any_of(spaces_, [](const auto& item) {
    const Space& space = item.second;
    const std::uint64_t fitted = space.whitening.fitted_rows();
    return fitted > 0 && !space.pinned && outgrown(fitted, space.keys);
  });
}

std::vector<SpaceKey> CandidateIndex::fitted_spaces() const {
  std::vector<SpaceKey> out;
  for (const auto& [key, space] : spaces_) {
    if (space.whitening.fitted_rows() > 0 && !space.pinned) out.push_back(key);
  }
  return out;
}

std::size_t CandidateIndex::keys() const {
  std::size_t total = 0;
  for (const auto& [key, space] : spaces_) total += space.keys;
  return total;
}

const std::string& CandidateIndex::whitening_digest(const SpaceKey& space) const {
  static const std::string kNone;
  const auto found = spaces_.find(space);
  return found == spaces_.end() ? kNone : found->second.digest;
}

bool CandidateIndex::differs_from(const Pinned* pinned) const {
  const std::string digest = pinned == nullptr ? "" : pinned->whitening.digest();
  return std::any_of(spaces_.begin(), spaces_.end(), [&](const auto& item) {
    const Space& space = item.second;
    if (pinned == nullptr || !pinned->fits(item.first)) return space.pinned;
    return space.whitening.dim() != 0 && space.digest != digest;
  });
}

const Whitening* CandidateIndex::whitening(const SpaceKey& space) const {
  const auto found = spaces_.find(space);
  const bool fitted = found != spaces_.end() && found->second.whitening.dim() != 0;
  return fitted ? &found->second.whitening : nullptr;
}

}  // namespace memslot
