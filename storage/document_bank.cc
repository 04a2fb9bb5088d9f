#include "storage/document_bank.h"

#include "shared/base/log.h"
#include "shared/memory/record.h"
#include "storage/bank_format.h"
#include "storage/publish.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

constexpr std::size_t kMaxDocument = std::size_t{512} << 10;
// Old versions are dropped in batches: a scan over freshly deleted keys at every put costs more.
constexpr std::uint64_t kTrimEvery = 8;

Result<std::string> prefix_of(std::string_view type, std::string_view ns) {
  MEMSLOT_TRY(check_name("document type", type));
  for (const std::string_view reserved : {"memory", "branch", "tombstone", "stats"}) {
    if (type == reserved) return invalid("document type", "one that is not a memory's", type);
  }
  MEMSLOT_TRY(check_name("namespace", ns));
  return std::string(type) + "/" + std::string(ns) + "/";
}

Result<std::string> id_of(std::string_view type, std::string_view ns, std::string_view name) {
  MEMSLOT_TRY(auto id, prefix_of(type, ns));
  MEMSLOT_TRY(check_name("document name", name));
  return id + std::string(name);
}

Result<Document> named(const RecordVersion& record, std::string_view name) {
  auto document = decode_document(record);
  if (!document) return document.error().with_context("document " + std::string(name));
  document.value().name = name;
  return document;
}

}  // namespace

Result<Document> DocumentBank::get(std::string_view type, std::string_view ns,
                                   std::string_view name, TimePoint deadline) {
  MEMSLOT_TRY(const auto id, id_of(type, ns, name));
  MEMSLOT_TRY(const auto head, store_.head(id, deadline));
  return named(head, name);
}

Result<Document> DocumentBank::put(std::string_view type, std::string_view ns,
                                   std::string_view name, const DocumentDraft& draft,
                                   TimePoint deadline) {
  MEMSLOT_TRY(const auto id, id_of(type, ns, name));
  if (draft.json.size() > kMaxDocument) {
    return invalid("document bytes", "at most 524288", draft.json.size());
  }
  if (!is_json(draft.json)) return invalid("document " + std::string(name), "JSON", "other text");
  if (draft.keep == 0) return invalid("document versions to keep", "1 or more", draft.keep);
  if (draft.keep_blob && draft.blob)
    return invalid("document blob", "a new one or the old one", "both");
  Document next;
  next.token = draft.token.empty() ? new_token(clock_) : draft.token;
  next.json = draft.json;
  MEMSLOT_TRY(bank_format::check_token(next.token + ":b"));
  if (draft.blob) {
    next.blob_token = next.token + ":b";
    next.blob_bytes = draft.blob->size();
    MEMSLOT_TRY(store_.put_payload(next.blob_token, *draft.blob, deadline));
  } else if (draft.keep_blob) {
    MEMSLOT_TRY(const auto current, get(type, ns, name, deadline));
    next.blob_token = current.blob_token;
    next.blob_bytes = current.blob_bytes;
  }
  auto published =
      publish_resolved(store_, id, draft.expected, next.token, encode_document(next), deadline);
  if (!published && published.error().code == ErrorCode::kConflict) {
    // A late retry of a put that did happen is success.
    const auto versions = store_.history(id, deadline);
    if (!versions) return published.error();
    for (const auto& old : versions.value()) {
      if (old.token == next.token) return named(old, name);
    }
  }
  if (!published) return published.error();
  const auto& record = published.value();
  // Where one version is kept, a blob that this one is without must not stay referred to.
  const bool blob_dropped = draft.keep == 1 && next.blob_token.empty();
  if (record.number > draft.keep && (blob_dropped || record.number % kTrimEvery == 0)) {
    // The put has happened; what is not dropped now is dropped eight puts later.
    if (auto trimmed = store_.trim(id, draft.keep, deadline); !trimmed) {
      log::debug("document {}: not trimmed: {}", id, trimmed.error().message);
    }
  }
  return named(record, name);
}

Result<std::vector<std::byte>> DocumentBank::load_blob(const Document& document,
                                                       TimePoint deadline) {
  if (document.blob_token.empty()) {
    return Error{ErrorCode::kNotFound,
                 "document " + document.name + ": expected a blob, found none"};
  }
  return store_.get_payload(document.blob_token, deadline);
}

Result<std::vector<Document>> DocumentBank::history(std::string_view type, std::string_view ns,
                                                    std::string_view name, TimePoint deadline) {
  MEMSLOT_TRY(const auto id, id_of(type, ns, name));
  MEMSLOT_TRY(const auto versions, store_.history(id, deadline));
  std::vector<Document> documents;
  for (const auto& version : versions) {
    MEMSLOT_TRY(auto document, named(version, name));
    documents.push_back(std::move(document));
  }
  return documents;
}

Result<DocumentPage> DocumentBank::list(std::string_view type, std::string_view ns,
                                        std::string_view after, std::size_t limit,
                                        TimePoint deadline) {
  MEMSLOT_TRY(const auto prefix, prefix_of(type, ns));
  MEMSLOT_TRY(const auto page, store_.list(prefix, after, limit, deadline));
  DocumentPage out{{}, page.next};
  for (const auto& entry : page.entries) {
    auto document = named(entry.head, std::string_view(entry.id).substr(prefix.size()));
    if (document) {
      out.documents.push_back(std::move(document).value());
    } else {
      log::warn("left out: {}", document.error().message);
    }
  }
  return out;
}

Status DocumentBank::erase(std::string_view type, std::string_view ns, std::string_view name,
                           std::string_view expected, TimePoint deadline) {
  MEMSLOT_TRY(const auto id, id_of(type, ns, name));
  return store_.erase(id, expected, deadline);
}

}  // namespace memslot
