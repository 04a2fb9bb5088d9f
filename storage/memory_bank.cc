#include "storage/memory_bank.h"

#include <algorithm>

#include "shared/memory/layout/check_layout.h"
#include "storage/bank_format.h"
#include "storage/key_block.h"
#include "storage/publish.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

constexpr std::size_t kMaxMemoryToken = 120;  // leaves room for ":p"
constexpr std::size_t kBranchPage = 1000;

Error missing(const MemoryRef& ref) {
  return {ErrorCode::kNotFound, "memory: expected " + ref.text() + ", found none"};
}

bool is_missing(const Error& error) { return error.code == ErrorCode::kNotFound; }

Status check_ref(const MemoryRef& ref) {
  MEMSLOT_TRY(check_name("namespace", ref.ns));
  return check_name("memory id", ref.id);
}

Status check_payload(const MemoryDraft& draft) {
  const auto& meta = draft.meta;
  if (draft.payload.size() > kMaxPayloadBytes) {
    return invalid("payload bytes", "at most 67108864", draft.payload.size());
  }
  if (draft.payload.size() != meta.payload_bytes) {
    return corrupt("payload bytes", meta.payload_bytes, draft.payload.size());
  }
  const auto digest = sha256(draft.payload);
  if (digest != meta.sha256) return corrupt("payload SHA-256", meta.sha256.hex(), digest.hex());
  MEMSLOT_TRY(const auto payload,
              MemoryPayload::parse({draft.payload.begin(), draft.payload.end()}));
  MEMSLOT_TRY(check_signature(meta.signature, payload.signature()));
  if (payload.dtype() != meta.dtype) {
    return mismatch("payload dtype", dtype_name(meta.dtype), dtype_name(payload.dtype()));
  }
  MEMSLOT_TRY(check_layout(payload));
  return payload.check_finite();
}

}  // namespace

Status check_draft(const MemoryDraft& draft) {
  const auto& meta = draft.meta;
  MEMSLOT_TRY(check_ref(meta.ref));
  if (!meta.source.empty()) {
    MEMSLOT_TRY(check_name("source", meta.source));
  }
  MEMSLOT_TRY(bank_format::check_token(meta.token));
  if (meta.token.size() > kMaxMemoryToken) {
    return invalid("memory token", "at most 120 bytes", meta.token.size());
  }
  MEMSLOT_TRY(check_payload(draft));
  if (draft.keys != nullptr) {
    MEMSLOT_TRY(check_keys(*draft.keys));
    const auto d_model = static_cast<std::uint32_t>(meta.signature.d_model);
    if (draft.keys->dim != d_model) return mismatch("key dimension", d_model, draft.keys->dim);
  }
  if (draft.source_text && draft.source_text->size() > kMaxBlobBytes) {
    return invalid("source text bytes", "at most 67108864", draft.source_text->size());
  }
  return ok();
}

namespace {

// The record's version as it will be read back. kInvalidArgument if it would not be.
Result<StoredMemory> make_stored(const MemoryDraft& draft, const Clock& clock) {
  StoredMemory stored{draft.meta, {}};
  auto& version = stored.version;
  version.ref.version = 0;
  version.branch = false;
  version.keys = draft.keys == nullptr ? 0 : draft.keys->rows();
  if (version.parent.empty()) version.parent = draft.expected;
  if (version.created_unix_ms == 0) version.created_unix_ms = clock.unix_ms();
  stored.parts.payload = version.token + ":p";
  if (draft.keys != nullptr) stored.parts.keys = version.token + ":k";
  if (draft.source_text) stored.parts.source = version.token + ":s";
  const std::string text = encode_memory(stored);
  if (text.size() > kMaxMemoryMetadata) {
    return invalid("memory metadata bytes", "at most 65536", text.size());
  }
  const auto back = memory_version_from_json(text);
  if (!back || back.value() != version) {
    return invalid("memory metadata", "UTF-8 text and finite numbers",
                   back ? "text that is not UTF-8" : back.error().message);
  }
  return stored;
}

// A retry offers the same bytes; another writer with this token is a bug that must not pass.
Result<PublishedMemory> already(const StoredMemory& found, const MemoryDraft& draft,
                                std::string head_token) {
  if (found.version.sha256 != draft.meta.sha256) {
    return Error{ErrorCode::kConflict, "token " + draft.meta.token + ": expected payload " +
                                           found.version.sha256.hex() + ", found " +
                                           draft.meta.sha256.hex()};
  }
  return PublishedMemory{found.version, std::move(head_token)};
}

}  // namespace

MemoryBank::MemoryBank(BankStore& store, const Clock& clock) : store_(store), clock_(clock) {}

std::mutex& MemoryBank::stripe(const MemoryRef& ref) {
  return stripes_[std::hash<std::string>{}(memory_record_id(ref)) % stripes_.size()];
}

Status MemoryBank::put_parts(const MemoryDraft& draft, StoredMemory& stored, TimePoint deadline) {
  std::vector<std::byte> keys;
  if (draft.keys != nullptr) keys = encode_keys(*draft.keys);
  const auto source = bytes_of(draft.source_text.value_or(""));
  // Asked before the first part, so that a refused version leaves no orphan behind.
  MEMSLOT_TRY(const auto usage, store_.usage(deadline));
  std::uint64_t more = draft.payload.size() + keys.size() + source.size();
  const auto over = [&] {
    return usage.quota_bytes != 0 && usage.payload_bytes + more > usage.quota_bytes;
  };
  if (over()) {
    // What an earlier attempt at this version stored is counted already.
    if (store_.get_payload(stored.parts.payload, deadline)) more -= draft.payload.size();
    if (!keys.empty() && store_.get_payload(stored.parts.keys, deadline)) more -= keys.size();
    if (!source.empty() && store_.get_payload(stored.parts.source, deadline)) more -= source.size();
  }
  if (over()) {
    return bank_format::over_quota(usage.quota_bytes, usage.payload_bytes, more);
  }
  MEMSLOT_TRY(store_.put_payload(stored.parts.payload, draft.payload, deadline));
  if (!stored.parts.keys.empty()) {
    MEMSLOT_TRY(store_.put_payload(stored.parts.keys, keys, deadline));
  }
  if (!stored.parts.source.empty()) {
    MEMSLOT_TRY(store_.put_payload(stored.parts.source, source, deadline));
  }
  return ok();
}

Result<PublishedMemory> MemoryBank::publish_memory(const MemoryDraft& draft, TimePoint deadline) {
  MEMSLOT_TRY(check_draft(draft));
  const std::lock_guard lock(stripe(draft.meta.ref));
  return publish_locked(draft, /*refuse_erased=*/true, deadline);
}

Result<PublishedMemory> MemoryBank::publish_locked(const MemoryDraft& draft, bool refuse_erased,
                                                   TimePoint deadline) {
  const auto& ref = draft.meta.ref;
  const std::string id = memory_record_id(ref);
  MEMSLOT_TRY(auto stored, make_stored(draft, clock_));
  const auto head = store_.head(id, deadline);
  if (!head && !is_missing(head.error())) return head.error();
  if (!head) {
    // Erased since, or never made: a late write must not bring back what was erased.
    if (!draft.expected.empty()) return missing(ref);
    const auto grave = store_.head(tombstone_record_id(ref), deadline);
    if (!grave && !is_missing(grave.error())) return grave.error();
    if (grave && refuse_erased) {
      MEMSLOT_TRY(const auto record, decode_tombstone(grave.value().metadata));
      if (std::ranges::find(record.tokens, draft.meta.token) != record.tokens.end())
        return missing(ref);
    }
  } else if (head.value().token != draft.expected) {
    const auto found = find(ref, draft.meta.token, deadline);
    if (found) return already(found.value(), draft, head.value().token);
    if (!is_missing(found.error())) return found.error();
  }
  MEMSLOT_TRY(put_parts(draft, stored, deadline));
  const auto published = publish_resolved(store_, id, draft.expected, draft.meta.token,
                                          encode_memory(stored), deadline);
  if (!published && published.error().code == ErrorCode::kConflict) {
    return settle_conflict(draft, stored, deadline);
  }
  if (!published) return published.error();
  counters_.published.add();
  MEMSLOT_TRY(auto memory, decode_memory(published.value()));
  return PublishedMemory{std::move(memory.version), published.value().token};
}

Result<PublishedMemory> MemoryBank::settle_conflict(const MemoryDraft& draft, StoredMemory& stored,
                                                    TimePoint deadline) {
  const auto& ref = draft.meta.ref;
  const auto head = store_.head(memory_record_id(ref), deadline);
  if (!head) return is_missing(head.error()) ? missing(ref) : head.error();
  const auto found = find(ref, draft.meta.token, deadline);
  if (found) return already(found.value(), draft, head.value().token);
  if (!is_missing(found.error())) return found.error();
  stored.version.branch = true;
  MEMSLOT_TRY(const auto kept, publish_resolved(store_, branch_record_id(ref, draft.meta.token), "",
                                                draft.meta.token, encode_memory(stored), deadline));
  counters_.conflicts.add();
  MEMSLOT_TRY(auto branch, decode_memory(kept));
  return PublishedMemory{std::move(branch.version), head.value().token};
}

Result<MemoryVersion> MemoryBank::head(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(check_ref(ref));
  const auto record = store_.head(memory_record_id(ref), deadline);
  if (!record) return is_missing(record.error()) ? missing({ref.ns, ref.id, 0}) : record.error();
  MEMSLOT_TRY(auto memory, decode_memory(record.value()));
  return std::move(memory.version);
}

Result<MemoryVersion> MemoryBank::version(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(auto newest, head(ref, deadline));
  if (ref.version == 0 || ref.version == newest.ref.version) return newest;
  if (ref.version > newest.ref.version) return missing(ref);
  MEMSLOT_TRY(const auto records, store_.history(memory_record_id(ref), deadline));
  for (const auto& record : records) {
    if (record.number != ref.version) continue;
    MEMSLOT_TRY(auto memory, decode_memory(record));
    return std::move(memory.version);
  }
  return missing(ref);
}

Result<StoredMemory> MemoryBank::find(const MemoryRef& ref, std::string_view token,
                                      TimePoint deadline) {
  MEMSLOT_TRY(check_ref(ref));
  const std::string id = memory_record_id(ref);
  const auto newest = store_.head(id, deadline);
  if (!newest) return is_missing(newest.error()) ? missing(ref) : newest.error();
  if (newest.value().token == token) return decode_memory(newest.value());
  MEMSLOT_TRY(const auto records, store_.history(id, deadline));
  for (const auto& record : records) {
    if (record.token == token) return decode_memory(record);
  }
  MEMSLOT_TRY(bank_format::check_token(token));
  const auto branch = store_.head(branch_record_id(ref, token), deadline);
  if (branch) return decode_memory(branch.value());
  if (!is_missing(branch.error())) return branch.error();
  return Error{ErrorCode::kNotFound, "memory " + ref.ns + "/" + ref.id + ": expected token " +
                                         std::string(token) + ", found none"};
}

Result<MemoryVersion> MemoryBank::version_of_token(const MemoryRef& ref, std::string_view token,
                                                   TimePoint deadline) {
  MEMSLOT_TRY(auto memory, find(ref, token, deadline));
  return std::move(memory.version);
}

Result<std::vector<StoredMemory>> MemoryBank::all_versions(const MemoryRef& ref,
                                                           TimePoint deadline) {
  MEMSLOT_TRY(check_ref(ref));
  const auto records = store_.history(memory_record_id(ref), deadline);
  if (!records) return is_missing(records.error()) ? missing({ref.ns, ref.id, 0}) : records.error();
  std::vector<StoredMemory> out;
  for (const auto& record : records.value()) {
    MEMSLOT_TRY(auto memory, decode_memory(record));
    out.push_back(std::move(memory));
  }
  return out;
}

Result<std::vector<StoredMemory>> MemoryBank::all_branches(const MemoryRef& ref,
                                                           TimePoint deadline) {
  MEMSLOT_TRY(head(ref, deadline));
  std::vector<StoredMemory> out;
  std::string after;
  do {
    MEMSLOT_TRY(const auto page,
                store_.list(branch_record_id(ref, ""), after, kBranchPage, deadline));
    for (const auto& entry : page.entries) {
      MEMSLOT_TRY(auto memory, decode_memory(entry.head));
      out.push_back(std::move(memory));
    }
    after = page.next;
  } while (!after.empty());
  return out;
}

Result<std::vector<MemoryVersion>> MemoryBank::history(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(auto memories, all_versions(ref, deadline));
  std::vector<MemoryVersion> out;
  for (auto& memory : memories) out.push_back(std::move(memory.version));
  return out;
}

Result<std::vector<MemoryVersion>> MemoryBank::branches(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(auto memories, all_branches(ref, deadline));
  std::vector<MemoryVersion> out;
  for (auto& memory : memories) out.push_back(std::move(memory.version));
  return out;
}

Result<MemoryPage> MemoryBank::list(std::string_view ns, const MemoryFilter& filter,
                                    std::string_view after, std::size_t limit, TimePoint deadline) {
  MEMSLOT_TRY(check_name("namespace", ns));
  MEMSLOT_TRY(bank_format::check_page(limit));
  const std::string prefix = memory_record_id({std::string(ns), filter.id_prefix, 0});
  MemoryPage page;
  page.next = after;
  do {
    // Never more than fit, so that the store's cursor is ours.
    MEMSLOT_TRY(const auto batch,
                store_.list(prefix, page.next, limit - page.heads.size(), deadline));
    for (const auto& entry : batch.entries) {
      MEMSLOT_TRY(auto memory, decode_memory(entry.head));
      if (!filter.source.empty() && memory.version.source != filter.source) continue;
      page.heads.push_back(std::move(memory.version));
    }
    page.next = batch.next;
  } while (page.heads.size() < limit && !page.next.empty());
  return page;
}

Result<std::vector<std::string>> MemoryBank::namespaces(TimePoint deadline) {
  constexpr std::string_view kPrefix = "memory/";
  std::vector<std::string> out;
  std::string after;
  do {
    MEMSLOT_TRY(const auto page, store_.list(kPrefix, after, bank_format::kMaxPage, deadline));
    for (const auto& entry : page.entries) {
      auto ns =
          entry.id.substr(kPrefix.size(), entry.id.find('/', kPrefix.size()) - kPrefix.size());
      if (std::ranges::find(out, ns) == out.end()) out.push_back(std::move(ns));
    }
    after = page.next;
  } while (!after.empty());
  return out;
}

Result<MemoryPayload> MemoryBank::load_payload(const MemoryVersion& version, TimePoint deadline) {
  MEMSLOT_TRY(const auto memory, find(version.ref, version.token, deadline));
  MEMSLOT_TRY(auto bytes, store_.get_payload(memory.parts.payload, deadline));
  if (bytes.size() != memory.version.payload_bytes) {
    return corrupt("payload bytes of " + version.ref.text(), memory.version.payload_bytes,
                   bytes.size());
  }
  MEMSLOT_TRY(auto payload, MemoryPayload::parse(std::move(bytes)));
  MEMSLOT_TRY(check_signature(memory.version.signature, payload.signature()));
  return payload;
}

Result<MemoryKeys> MemoryBank::load_keys(const MemoryVersion& version, TimePoint deadline) {
  MEMSLOT_TRY(const auto memory, find(version.ref, version.token, deadline));
  if (memory.parts.keys.empty()) {
    return Error{ErrorCode::kNotFound,
                 "keys of " + version.ref.text() + ": expected some, found none"};
  }
  MEMSLOT_TRY(const auto bytes, store_.get_payload(memory.parts.keys, deadline));
  return decode_keys(bytes);
}

Result<std::string> MemoryBank::load_source(const MemoryVersion& version, TimePoint deadline) {
  MEMSLOT_TRY(const auto memory, find(version.ref, version.token, deadline));
  if (memory.parts.source.empty()) {
    return Error{ErrorCode::kNotFound,
                 "source text of " + version.ref.text() + ": expected one, found none"};
  }
  MEMSLOT_TRY(const auto bytes, store_.get_payload(memory.parts.source, deadline));
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<MemoryVersion> MemoryBank::rollback(const MemoryRef& ref, std::uint64_t to,
                                           std::string_view expected, std::string_view new_token,
                                           TimePoint deadline) {
  const std::lock_guard lock(stripe(ref));
  MEMSLOT_TRY(auto versions, all_versions(ref, deadline));
  for (const auto& old : versions) {
    if (old.version.token == new_token) return old.version;  // a retry
  }
  const auto chosen =
      std::ranges::find(versions, to, [](const auto& m) { return m.version.ref.version; });
  if (chosen == versions.end()) return missing({ref.ns, ref.id, to});
  StoredMemory next = *chosen;
  next.version.token = new_token;
  next.version.parent = expected;
  next.version.origin = VersionOrigin::kRollback;
  next.version.origin_id = chosen->version.token;
  next.version.created_unix_ms = clock_.unix_ms();
  const auto record = publish_resolved(store_, memory_record_id(ref), expected, new_token,
                                       encode_memory(next), deadline);
  if (!record && record.error().code == ErrorCode::kConflict) counters_.conflicts.add();
  if (!record) return record.error();
  counters_.published.add();
  MEMSLOT_TRY(auto memory, decode_memory(record.value()));
  return std::move(memory.version);
}

}  // namespace memslot
