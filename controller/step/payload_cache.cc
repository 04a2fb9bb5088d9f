#include "controller/step/payload_cache.h"

namespace memslot {

Result<SharedBytes> PayloadCache::get(const MemoryVersion& version, TimePoint deadline) {
  const auto found = by_version_.find({version.ref, version.token});
  if (found != by_version_.end()) {
    ++hits_;
    items_.splice(items_.begin(), items_, found->second);
    return items_.front().payload;
  }
  ++misses_;
  MEMSLOT_TRY(const MemoryPayload payload, bank_.load_payload(version, deadline));
  const SharedBytes bytes = share_bytes({payload.bytes().begin(), payload.bytes().end()});
  if (bytes->size() > max_bytes_) return bytes;
  items_.push_front({version.ref, version.token, bytes});
  by_version_[{version.ref, version.token}] = items_.begin();
  bytes_ += bytes->size();
  while (bytes_ > max_bytes_) drop(std::prev(items_.end()));
  return bytes;
}

void PayloadCache::drop(std::list<Item>::iterator item) {
  bytes_ -= item->payload->size();
  by_version_.erase({item->ref, item->token});
  items_.erase(item);
}

void PayloadCache::forget(const MemoryRef& ref) {
  for (auto it = items_.begin(); it != items_.end();) {
    const auto item = it++;
    if (item->ref.ns == ref.ns && item->ref.id == ref.id) drop(item);
  }
}

}  // namespace memslot
