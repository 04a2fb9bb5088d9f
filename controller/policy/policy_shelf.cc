#include "controller/policy/policy_shelf.h"

#include <nlohmann/json.hpp>

#include "shared/base/json_dump.h"
#include "shared/base/log.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kType = "policy";
constexpr const char* kNamespace = "default";
constexpr const char* kName = "learned";

std::string describe(const PolicySnapshot& snapshot, std::string_view origin, std::int64_t now) {
  const Checkpoint& c = snapshot.checkpoint;
  return dump(Json{{"digest", snapshot.digest},
                   {"origin", std::string(origin)},
                   {"update", c.update},
                   {"created_unix_ms", now},
                   {"model", c.task.model},
                   {"layer", c.task.layer},
                   {"whitening", snapshot.space}});
}

Result<PolicyRecord> record_of(const Document& document) {
  const Json json = Json::parse(document.json, nullptr, false);
  PolicyRecord out;
  const auto text = [&](const char* name, std::string& to) {
    if (!json.is_object() || !json.contains(name) || !json[name].is_string()) return false;
    to = json[name].get<std::string>();
    return true;
  };
  if (!text("digest", out.digest) || !text("origin", out.origin)) {
    return corrupt("policy record", "digest and origin", document.json.substr(0, 60));
  }
  out.number = document.number;
  if (json.contains("update") && json["update"].is_number_unsigned()) out.update = json["update"];
  if (json.contains("created_unix_ms") && json["created_unix_ms"].is_number_integer()) {
    out.created_unix_ms = json["created_unix_ms"];
  }
  return out;
}

bool says_none(const Document& document) {
  const auto record = record_of(document);
  return record && record.value().digest.empty();
}

}  // namespace

void PolicyShelf::keep(const SnapshotPtr& snapshot, std::uint64_t number, bool as_head) {
  const std::lock_guard lock(mutex_);
  std::erase_if(known_, [](const auto& item) { return item.second.expired(); });
  known_[snapshot->digest] = snapshot;
  if (!as_head) return;
  head_ = snapshot;
  head_number_ = number;
  retired_ = false;
}

void PolicyShelf::set_retired() {
  const std::lock_guard lock(mutex_);
  head_.reset();
  head_number_ = 0;
  retired_ = true;
}

bool PolicyShelf::retired() const {
  const std::lock_guard lock(mutex_);
  return retired_;
}

SnapshotPtr PolicyShelf::head() const {
  const std::lock_guard lock(mutex_);
  return head_;
}

std::uint64_t PolicyShelf::head_number() const {
  const std::lock_guard lock(mutex_);
  return head_number_;
}

Result<SnapshotPtr> PolicyShelf::read(const Document& document, TimePoint deadline) {
  MEMSLOT_TRY(const auto blob, documents_.load_blob(document, deadline));
  return make_snapshot({reinterpret_cast<const char*>(blob.data()), blob.size()}, engine_);
}

Status PolicyShelf::load(TimePoint deadline) {
  const auto document = documents_.get(kType, kNamespace, kName, deadline);
  if (!document) {
    return document.error().code == ErrorCode::kNotFound ? ok() : Status(document.error());
  }
  if (says_none(document.value())) {
    set_retired();
    return ok();
  }
  auto snapshot = read(document.value(), deadline);
  if (!snapshot) {
    log::warn("the learned policy is not used: {}", snapshot.error().message);
    return ok();
  }
  keep(snapshot.value(), document.value().number, /*as_head=*/true);
  return ok();
}

Result<SnapshotPtr> PolicyShelf::publish(const std::string& bytes, std::string_view origin,
                                         std::string_view instead_of, TimePoint deadline) {
  MEMSLOT_TRY(SnapshotPtr snapshot, make_snapshot(bytes, engine_));
  const std::lock_guard lock(publishing_);
  const auto current = documents_.get(kType, kNamespace, kName, deadline);
  if (!current && current.error().code != ErrorCode::kNotFound) return current.error();
  DocumentDraft draft;
  if (current) {
    const auto record = record_of(current.value());
    const std::string now = record ? record.value().digest : "";
    if (!instead_of.empty() && now != instead_of) {
      return Error{ErrorCode::kConflict, "policy: expected " + std::string(instead_of) +
                                             " to be the one that acts, found " +
                                             (now.empty() ? "none" : now)};
    }
    if (now == snapshot->digest) {
      keep(snapshot, current.value().number, /*as_head=*/true);
      return snapshot;
    }
    draft.expected = current.value().token;
  }
  const std::string json = describe(*snapshot, origin, clock_.unix_ms());
  draft.json = json;
  draft.blob = std::as_bytes(std::span(bytes));
  draft.keep = kKept;
  MEMSLOT_TRY(const auto put, documents_.put(kType, kNamespace, kName, draft, deadline));
  keep(snapshot, put.number, /*as_head=*/true);
  log::info("policy {} published ({})", snapshot->digest.substr(0, 12), origin);
  return snapshot;
}

Status PolicyShelf::retire(TimePoint deadline) {
  const std::lock_guard lock(publishing_);
  const auto current = documents_.get(kType, kNamespace, kName, deadline);
  if (!current && current.error().code != ErrorCode::kNotFound) return current.error();
  if (!current) return ok();
  if (says_none(current.value())) {
    // Also where an earlier attempt could not tell that it had succeeded.
    set_retired();
    return ok();
  }
  const std::string json =
      dump(Json{{"digest", ""}, {"origin", "unload"}, {"created_unix_ms", clock_.unix_ms()}});
  DocumentDraft draft;
  draft.expected = current.value().token;
  draft.json = json;
  draft.keep = kKept;
  MEMSLOT_TRY(documents_.put(kType, kNamespace, kName, draft, deadline));
  set_retired();
  log::info("no learned policy acts any more");
  return ok();
}

Result<SnapshotPtr> PolicyShelf::find(std::string_view digest, TimePoint deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (head_ != nullptr && head_->digest == digest) return head_;
    const auto known = known_.find(digest);
    if (known != known_.end()) {
      if (SnapshotPtr snapshot = known->second.lock()) return snapshot;
    }
  }
  const auto versions = documents_.history(kType, kNamespace, kName, deadline);
  if (!versions && versions.error().code != ErrorCode::kNotFound) return versions.error();
  for (std::size_t i = versions ? versions.value().size() : 0; i-- > 0;) {
    const Document& document = versions.value()[i];
    const auto record = record_of(document);
    if (!record || record.value().digest != digest) continue;
    MEMSLOT_TRY(SnapshotPtr snapshot, read(document, deadline));
    keep(snapshot, document.number, /*as_head=*/false);
    return snapshot;
  }
  return Error{ErrorCode::kNotFound,
               "policy learned: expected one of this bank, found " + std::string(digest)};
}

Result<std::vector<PolicyRecord>> PolicyShelf::list(TimePoint deadline) {
  std::vector<PolicyRecord> out;
  const auto versions = documents_.history(kType, kNamespace, kName, deadline);
  if (!versions) {
    if (versions.error().code == ErrorCode::kNotFound) return out;
    return versions.error();
  }
  for (const Document& document : versions.value()) {
    auto record = record_of(document);
    if (record) out.push_back(std::move(record).value());
  }
  return out;
}

}  // namespace memslot
