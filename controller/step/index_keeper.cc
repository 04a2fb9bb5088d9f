#include "controller/step/index_keeper.h"

#include <algorithm>
#include <utility>

#include "shared/base/log.h"

namespace memslot {
namespace {

constexpr auto kReadTime = std::chrono::seconds(30);
constexpr std::size_t kPage = 1000;

// Of the bank as it is now, not of what it holds.
bool passes(ErrorCode code) {
  return code == ErrorCode::kIndeterminate || code == ErrorCode::kUnavailable ||
         code == ErrorCode::kTimeout || code == ErrorCode::kOverloaded ||
         code == ErrorCode::kBusy || code == ErrorCode::kIo;
}

Duration longer(Duration pause) { return std::min(2 * pause, IndexKeeper::kRetryAtMost); }

}  // namespace

IndexKeeper::IndexKeeper(MemoryBank& bank, const Clock& clock, std::function<void()> ready,
                         DocumentBank* documents, std::string files, std::uint64_t kept_from)
    : bank_(bank),
      clock_(clock),
      ready_(std::move(ready)),
      files_(std::move(files)),
      kept_from_(kept_from),
      index_(std::make_unique<CandidateIndex>()) {
  if (documents != nullptr) shelf_.emplace(*documents);
}

IndexKeeper::~IndexKeeper() {
  stop_ = true;
  if (builder_.joinable()) builder_.join();
}

TimePoint IndexKeeper::soon() const { return deadline_in(clock_, kReadTime); }

Result<std::vector<MemoryVersion>> IndexKeeper::read_heads() {
  std::vector<MemoryVersion> heads;
  MEMSLOT_TRY(const auto namespaces, bank_.namespaces(soon()));
  for (const std::string& ns : namespaces) {
    std::string after;
    do {
      MEMSLOT_TRY(auto page, bank_.list(ns, {}, after, kPage, soon()));
      for (MemoryVersion& head : page.heads) heads.push_back(std::move(head));
      after = page.next;
    } while (!after.empty());
  }
  // In the order of publishing, as far as a clock can tell: it gives the memories' ages.
  std::stable_sort(heads.begin(), heads.end(), [](const auto& a, const auto& b) {
    return a.created_unix_ms < b.created_unix_ms;
  });
  return heads;
}

Result<MemoryKeys> IndexKeeper::read_keys(const MemoryVersion& version, TimePoint deadline) {
  if (version.keys == 0) return MemoryKeys{};
  MEMSLOT_TRY(auto keys, bank_.load_keys(version, deadline));
  const auto dim = static_cast<std::uint32_t>(version.signature.d_model);
  if (keys.dim != dim) return mismatch("dimensions of keys", dim, keys.dim);
  return keys;
}

MemoryKeys IndexKeeper::keys_of(const MemoryVersion& version, Names& unread) {
  auto keys = read_keys(version, soon());
  if (keys) return std::move(keys).value();
  log::warn("{}: not searchable by its keys: {}", version.ref.text(), keys.error().message);
  if (passes(keys.error().code)) unread.insert({version.ref.ns, version.ref.id});
  return {};
}

// Those that the bank keeps, unless its keys have outgrown them; else from at most kMaxFittedRows
// keys a space, evenly over all of its memories: they are never all in memory.
Result<CandidateIndex::Statistics> IndexKeeper::fit(const std::vector<MemoryVersion>& heads,
                                                    std::uint64_t version,
                                                    const CandidateIndex::Pinned* pinned) {
  struct Sample {
    std::uint64_t total = 0, seen = 0;
    std::vector<float> rows;
  };
  std::map<SpaceKey, Sample> samples;
  CandidateIndex::Statistics out;
  for (const MemoryVersion& head : heads) samples[SpaceKey::of(head.signature)].total += head.keys;
  for (const auto& [space, sample] : samples) {
    if (!shelf_ || sample.total == 0 || (pinned != nullptr && pinned->fits(space))) continue;
    auto kept = shelf_->load(space, soon());
    if (!kept || CandidateIndex::outgrown(kept->fitted_rows(), sample.total)) continue;
    out[space] = std::move(*kept);
  }
  for (const MemoryVersion& head : heads) {
    if (stop_) return Error{ErrorCode::kCancelled, "index build: stopped"};
    const SpaceKey space = SpaceKey::of(head.signature);
    if (out.contains(space) || (pinned != nullptr && pinned->fits(space))) continue;
    Sample& sample = samples[space];
    const std::uint64_t stride = sample.total / kMaxFittedRows + 1;
    const auto read = read_keys(head, soon());
    if (!read) continue;  // said where it is indexed
    const MemoryKeys& keys = read.value();
    for (std::uint32_t row = 0; row < keys.rows(); ++row) {
      if (sample.seen++ % stride != 0) continue;
      const auto from = keys.values.begin() + static_cast<std::ptrdiff_t>(row) * keys.dim;
      sample.rows.insert(sample.rows.end(), from, from + keys.dim);
    }
  }
  for (const auto& [space, sample] : samples) {
    if (sample.rows.empty()) continue;
    out[space] = Whitening::fit(sample.rows, static_cast<std::uint32_t>(space.d_model), version,
                                sample.seen);
  }
  return out;
}

// The counts that the bank has of the memory.
IndexedMemory IndexKeeper::counted(const MemoryVersion& head, TimePoint deadline) {
  IndexedMemory like;
  if (const auto counts = bank_.statistics(head.ref, deadline)) {
    like.uses = static_cast<std::uint32_t>(counts.value().uses);
    like.gains = counts.value().gains;
    like.mean_net_gain = counts.value().mean_net_gain;
  }
  return like;
}

void IndexKeeper::note_use(std::string_view ns, std::string_view id, const float* net_gain) {
  index_->note_use(ns, id, net_gain);
  catalog_.note_use(ns, id, net_gain);
}

Result<IndexKeeper::Built> IndexKeeper::make_index(std::uint64_t version, PinnedPtr pinned,
                                                   Names& unread) {
  MEMSLOT_TRY(const auto heads, read_heads());
  MEMSLOT_TRY(auto statistics, fit(heads, version, pinned.get()));
  auto index = std::make_unique<CandidateIndex>(std::move(statistics), std::move(pinned));
  const bool first = version == 1;
  const auto restored = first ? files_.restore(*index) : IndexFiles::Restored{};
  std::uint64_t anew = 0;
  for (const MemoryVersion& head : heads) {
    if (stop_) return Error{ErrorCode::kCancelled, "index build: stopped"};
    const IndexedMemory like = counted(head, soon());
    if (restored.memories == 0 || !index->adopt(head, like)) {
      const MemoryKeys keys = keys_of(head, unread);
      index->upsert(head, keys.values, like);
      anew += keys.rows();
    }
    // Afterwards it is kept by what changes.
    if (first) catalog_.put(head, like.uses, like.gains, like.mean_net_gain);
  }
  const std::size_t gone = restored.memories == 0 ? 0 : index->drop_unadopted();
  if (gone > 0) files_.discard();  // erased, it may be, when this index did not hear of it
  if (first) {
    unkept_ = gone > 0 ? index->keys() : anew;
    outdated_ = !restored.all;
  }
  if (restored.memories > 0) {
    log::info("index: {} of {} memories as they were kept", restored.memories - gone,
              index->memories());
  }
  return index;
}

Status IndexKeeper::build() {
  MEMSLOT_TRY(index_, make_index(++builds_, pinned_, unread_));
  keep_statistics();
  // The next start should be quick, however this process ends.
  if (much_unkept() || index_->keys() < kept_from_) keep();
  return ok();
}

// A few keys are read again by the next start: writing all of it would take longer.
bool IndexKeeper::much_unkept() const { return unkept_ * 10 > index_->keys(); }

void IndexKeeper::keep() {
  if (!files_.keeps()) return;
  if (index_->keys() < kept_from_) return files_.discard();
  if (!outdated_ && !much_unkept()) return;
  if (!files_.save(*index_)) return;
  unkept_ = 0;
  outdated_ = false;
}

void IndexKeeper::keep_statistics() {
  if (!shelf_) return;
  for (const SpaceKey& space : index_->fitted_spaces()) {
    const Whitening& whitening = *index_->whitening(space);
    // Of few keys they soon change, and would say much about each, also after it was erased.
    if (whitening.fitted_rows() < kFewKeys) continue;
    shelf_->save(space, whitening, index_->whitening_digest(space), soon());
  }
}

void IndexKeeper::refresh(const MemoryRef& ref, TimePoint deadline) {
  unread_.erase({ref.ns, ref.id});
  const auto head = bank_.head(ref, deadline);
  if (!head && head.error().code == ErrorCode::kNotFound) {
    const bool known = index_->find(ref.ns, ref.id) != nullptr;
    index_->erase(ref.ns, ref.id);
    catalog_.erase(ref.ns, ref.id);
    if (known) {
      files_.discard();  // they tell what it was about
      unkept_ = index_->keys();
    }
    return;
  }
  const auto keys = head ? read_keys(head.value(), deadline) : Result<MemoryKeys>(head.error());
  const bool again = !keys && passes(keys.error().code);
  if (!keys) {
    log::warn("{}: {}{}: {}", ref.text(),
              head ? "not searchable by its keys" : "the index keeps what it knew",
              again ? " for now" : "", keys.error().message);
  }
  if (again) {
    unread_.insert({ref.ns, ref.id});
    retry_at_ = clock_.now() + pause_;
  }
  if (!head) return;
  const IndexedMemory like = counted(head.value(), deadline);
  index_->upsert(head.value(), keys ? keys.value().values : std::vector<float>{}, like);
  catalog_.put(head.value(), like.uses, like.gains, like.mean_net_gain);
  if (keys) unkept_ += keys.value().rows();
}

void IndexKeeper::retry() {
  if ((unread_.empty() && !build_again_) || clock_.now() < retry_at_) return;
  if (build_again_ && !building_) return rebuild();
  if (unread_.empty()) return;
  const auto next = unread_.upper_bound(tried_);  // one that always fails holds up no other
  tried_ = next == unread_.end() ? *unread_.begin() : *next;
  pause_ = longer(pause_);
  changed({.ns = tried_.first, .id = tried_.second}, deadline_in(clock_, kRetryTime));
  if (!unread_.contains(tried_)) pause_ = kRetryAfter;
}

void IndexKeeper::changed(const MemoryRef& ref) { changed(ref, soon()); }

void IndexKeeper::changed(const MemoryRef& ref, TimePoint deadline) {
  refresh(ref, deadline);
  keep_statistics();
  if (building_) {
    changed_.insert({ref.ns, ref.id});
  } else if (index_->refit_due()) {
    rebuild();
  }
}

void IndexKeeper::rebuild() {
  if (building_) return;
  if (builder_.joinable()) builder_.join();
  building_ = true;
  build_again_ = false;
  changed_.clear();
  builder_ = std::thread([this, version = ++builds_, pinned = pinned_] {
    Names unread;
    auto made = make_index(version, pinned, unread);
    if (!made && !stop_) log::warn("index build: {}", made.error().message);
    {
      const std::lock_guard lock(mutex_);
      failed_ = !made;
      if (made) finished_ = std::move(made).value();
      finished_unread_ = std::move(unread);
    }
    ready_();
  });
}

void IndexKeeper::pin(PinnedPtr pinned) {
  pinned_ = std::move(pinned);
  if (!building_ && stale()) rebuild();
}

bool IndexKeeper::stale() const { return index_->differs_from(pinned_.get()); }

bool IndexKeeper::adopt() {
  if (!building_) return false;
  bool failed = false;
  {
    const std::lock_guard lock(mutex_);
    if (finished_ == nullptr && !failed_) return false;
    failed = std::exchange(failed_, false);
    if (finished_ != nullptr) {
      index_ = std::move(finished_);
      unkept_ = index_->keys();
      unread_ = std::move(finished_unread_);  // it has read all the others
    }
  }
  building_ = false;
  build_again_ = failed;
  if (failed) {
    retry_at_ = clock_.now() + pause_;
    pause_ = longer(pause_);
  } else {
    pause_ = kRetryAfter;
  }
  const auto changed = std::move(changed_);
  changed_.clear();
  for (const auto& [ns, id] : changed) refresh({.ns = ns, .id = id}, soon());
  keep_statistics();
  // Learning may have gone on meanwhile.
  if ((!failed && stale()) || (!changed.empty() && index_->refit_due())) rebuild();
  return true;
}

}  // namespace memslot
