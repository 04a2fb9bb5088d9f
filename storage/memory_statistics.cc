// MemoryBank: mutable statistics, counted in memory and written in batches.
#include "storage/memory_bank.h"
#include "storage/publish.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

MemoryStatistics merged(const MemoryStatistics& a, const MemoryStatistics& b) {
  MemoryStatistics sum{a.uses + b.uses, a.gains + b.gains, 0};
  if (sum.gains != 0) {
    sum.mean_net_gain = (a.mean_net_gain * static_cast<double>(a.gains) +
                         b.mean_net_gain * static_cast<double>(b.gains)) /
                        static_cast<double>(sum.gains);
  }
  return sum;
}

MemoryRef ref_of(std::string_view key) {  // "<ns>/<id>"
  const auto slash = key.find('/');
  return {std::string(key.substr(0, slash)), std::string(key.substr(slash + 1)), 0};
}

// Adds `more` to what is stored. ok() if the memory is gone.
Status add_to_stored(BankStore& store, const Clock& clock, const MemoryRef& ref,
                     const MemoryStatistics& more, TimePoint deadline) {
  const auto memory = store.head(memory_record_id(ref), deadline);
  if (!memory) return memory.error().code == ErrorCode::kNotFound ? ok() : Status(memory.error());
  const std::string id = statistics_record_id(ref);
  MemoryStatistics sum = more;
  std::string expected;
  const auto old = store.head(id, deadline);
  if (old) {
    MEMSLOT_TRY(const auto stored, decode_statistics(old.value().metadata));
    sum = merged(stored, more);
    expected = old.value().token;
  } else if (old.error().code != ErrorCode::kNotFound) {
    return old.error();
  }
  MEMSLOT_TRY(
      publish_resolved(store, id, expected, new_token(clock), encode_statistics(sum), deadline));
  return store.trim(id, 1, deadline);
}

}  // namespace

void MemoryBank::note_use(const MemoryRef& ref, std::optional<double> net_gain) {
  const MemoryStatistics one{1, net_gain ? std::uint64_t{1} : 0, net_gain.value_or(0.0)};
  const std::lock_guard lock(statistics_mutex_);
  auto& pending = pending_[ref.ns + "/" + ref.id];
  pending = merged(pending, one);
}

Result<MemoryStatistics> MemoryBank::statistics(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(head(ref, deadline));
  MemoryStatistics sum;
  const auto stored = store_.head(statistics_record_id(ref), deadline);
  if (stored) {
    MEMSLOT_TRY(sum, decode_statistics(stored.value().metadata));
  } else if (stored.error().code != ErrorCode::kNotFound) {
    return stored.error();
  }
  const std::lock_guard lock(statistics_mutex_);
  const auto pending = pending_.find(ref.ns + "/" + ref.id);
  return pending == pending_.end() ? sum : merged(sum, pending->second);
}

Status MemoryBank::flush_statistics(TimePoint deadline) {
  for (;;) {
    std::string key;
    MemoryStatistics more;
    {
      const std::lock_guard lock(statistics_mutex_);
      if (pending_.empty()) return ok();
      auto first = pending_.extract(pending_.begin());
      key = first.key();
      more = first.mapped();
    }
    const auto ref = ref_of(key);
    const std::lock_guard lock(stripe(ref));
    const auto added = add_to_stored(store_, clock_, ref, more, deadline);
    if (added) continue;
    const std::lock_guard statistics_lock(statistics_mutex_);
    pending_[key] = merged(pending_[key], more);
    return added;
  }
}

}  // namespace memslot
