#include "storage/memory_store.h"

#include <algorithm>

#include "storage/bank_format.h"

namespace memslot {
namespace bf = bank_format;

MemoryStore::MemoryStore(const Clock& clock, std::uint64_t quota_bytes)
    : clock_(clock), quota_bytes_(quota_bytes) {}

Status MemoryStore::check_deadline(TimePoint deadline) const {
  if (clock_.now() > deadline) return bf::past_deadline("bank");
  return ok();
}

MemoryStore::Record* MemoryStore::find(std::string_view id) {
  const auto it = records_.find(id);
  return it == records_.end() || it->second.history.empty() ? nullptr : &it->second;
}

Status MemoryStore::put_payload(std::string_view token, std::span<const std::byte> bytes,
                                TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  if (bytes.size() > kMaxBlobBytes)
    return invalid("payload bytes", "at most 67108864", bytes.size());
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  if (const auto it = payloads_.find(token); it != payloads_.end()) {
    if (!std::ranges::equal(it->second.bytes, bytes)) {
      return Error{ErrorCode::kConflict, "payload " + std::string(token) +
                                             ": expected the bytes already stored, found others"};
    }
    it->second.put_unix_ms = clock_.unix_ms();
    return ok();
  }
  if (quota_bytes_ != 0 && bytes.size() > quota_bytes_ - std::min(quota_bytes_, payload_bytes_)) {
    return bf::over_quota(quota_bytes_, payload_bytes_, bytes.size());
  }
  payloads_[std::string(token)] = {{bytes.begin(), bytes.end()}, clock_.unix_ms()};
  payload_bytes_ += bytes.size();
  return ok();
}

Result<std::vector<std::byte>> MemoryStore::get_payload(std::string_view token,
                                                        TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  const auto it = payloads_.find(token);
  if (it == payloads_.end()) return bf::payload_missing(token);
  return it->second.bytes;
}

Status MemoryStore::erase_payload(std::string_view token, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_token(token));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  if (const auto it = payloads_.find(token); it != payloads_.end()) {
    payload_bytes_ -= it->second.bytes.size();
    payloads_.erase(it);
  }
  return ok();
}

Result<PayloadPage> MemoryStore::list_payloads(std::string_view after, std::size_t limit,
                                               TimePoint deadline) {
  MEMSLOT_TRY(bf::check_page(limit));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  PayloadPage page;
  for (auto it = payloads_.upper_bound(after); it != payloads_.end(); ++it) {
    if (page.entries.size() == limit) {
      page.next = page.entries.back().token;
      break;
    }
    page.entries.push_back({it->first, it->second.bytes.size(), it->second.put_unix_ms});
  }
  return page;
}

Result<RecordVersion> MemoryStore::publish(std::string_view id, std::string_view expected,
                                           std::string_view token, std::string_view metadata,
                                           TimePoint deadline) {
  MEMSLOT_TRY(bf::check_publish(id, expected, token, metadata));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  Record& record = records_[std::string(id)];
  auto& history = record.history;
  if (!history.empty() && history.back().token == token) return history.back();
  const std::string head = history.empty() ? "" : history.back().token;
  if (head != expected) return bf::head_moved(id, expected, head);
  for (const auto& old : history) {
    if (old.token == token) return bf::head_moved(id, token, head);
  }
  history.push_back({std::string(token), head, ++record.last_number, std::string(metadata)});
  return history.back();
}

Result<RecordVersion> MemoryStore::head(std::string_view id, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  const Record* record = find(id);
  if (record == nullptr) return bf::record_missing(id);
  return record->history.back();
}

Result<std::vector<RecordVersion>> MemoryStore::history(std::string_view id, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  const Record* record = find(id);
  if (record == nullptr) return bf::record_missing(id);
  return record->history;
}

Result<RecordPage> MemoryStore::list(std::string_view prefix, std::string_view after,
                                     std::size_t limit, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_page(limit));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  RecordPage page;
  auto it = after < prefix ? records_.lower_bound(prefix) : records_.upper_bound(after);
  for (; it != records_.end() && it->first.starts_with(prefix); ++it) {
    if (it->second.history.empty()) continue;
    if (page.entries.size() == limit) {
      page.next = page.entries.back().id;
      break;
    }
    page.entries.push_back({it->first, it->second.history.back()});
  }
  return page;
}

Status MemoryStore::erase(std::string_view id, std::string_view expected, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  Record* record = find(id);
  if (record == nullptr) return bf::record_missing(id);
  const auto& head = record->history.back().token;
  if (!expected.empty() && head != expected) return bf::head_moved(id, expected, head);
  record->history.clear();
  return ok();
}

Status MemoryStore::trim(std::string_view id, std::size_t keep, TimePoint deadline) {
  MEMSLOT_TRY(bf::check_record_id(id));
  if (keep == 0) return invalid("versions to keep", "1 or more", keep);
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  Record* record = find(id);
  if (record == nullptr) return bf::record_missing(id);
  auto& history = record->history;
  if (history.size() > keep) {
    history.erase(history.begin(), history.end() - static_cast<std::ptrdiff_t>(keep));
  }
  return ok();
}

Result<StoreUsage> MemoryStore::usage(TimePoint deadline) {
  MEMSLOT_TRY(check_deadline(deadline));
  const std::lock_guard lock(mutex_);
  const auto live =
      std::ranges::count_if(records_, [](const auto& r) { return !r.second.history.empty(); });
  return StoreUsage{payload_bytes_, 0, quota_bytes_, static_cast<std::uint64_t>(live),
                    /*compactions=*/0};
}

Status MemoryStore::compact(TimePoint deadline) { return check_deadline(deadline); }

Status MemoryStore::backup(const std::string& directory, TimePoint) {
  return Error{ErrorCode::kNotSupported,
               "backup to " + directory + ": expected a bank on disk, found one in memory"};
}

}  // namespace memslot
