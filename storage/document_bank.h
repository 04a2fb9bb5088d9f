#pragma once
// Durable JSON documents over BankStore, for what is not a memory: learn jobs, outer parameters,
// policy checkpoints, step directives. One record "<type>/<ns>/<name>" each, changed by
// compare-and-set, with at most one blob beside the text.
//
// Threads: every method may be called from any thread.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/bank_store.h"

namespace memslot {

struct Document {
  std::string name;
  std::string token;
  std::uint64_t number = 0;  // 1, 2, ... in put order
  std::string json;          // as it was put, byte for byte
  std::uint64_t blob_bytes = 0;
  std::string blob_token;  // "" without a blob
};

struct DocumentPage {
  std::vector<Document> documents;  // by name, ascending
  std::string next;                 // opaque cursor; "" at the end
};

// Borrows; see DocumentBank::put().
struct DocumentDraft {
  std::string expected;                            // token of the current one, "" to create
  std::string_view json;                           // at most 512 KiB
  std::optional<std::span<const std::byte>> blob;  // at most kMaxBlobBytes; none: without a blob
  bool keep_blob = false;  // go on referring to the blob of `expected` (and give none)
  std::string token;       // "": made by put(). Give one to make a retry idempotent
  std::size_t keep = 16;   // how many versions of this document the bank remembers at least.
                           // 1 and no blob: exactly, so that nothing refers to an earlier blob
};

class DocumentBank {
 public:
  // `store` and `clock` must outlive the bank.
  DocumentBank(BankStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  // `type`, `ns`, `name`: as memory names (check_name); `type` not memory, branch, tombstone,
  // stats. kInvalidArgument: names, or text that is not JSON; kNotFound; kConflict; kIndeterminate:
  // put again with the same token.
  Result<Document> get(std::string_view type, std::string_view ns, std::string_view name,
                       TimePoint deadline);
  Result<Document> put(std::string_view type, std::string_view ns, std::string_view name,
                       const DocumentDraft& draft, TimePoint deadline);
  // kNotFound without a blob.
  Result<std::vector<std::byte>> load_blob(const Document& document, TimePoint deadline);
  Result<std::vector<Document>> history(std::string_view type, std::string_view ns,
                                        std::string_view name, TimePoint deadline);  // oldest first
  // A document that cannot be decoded is logged and left out.
  Result<DocumentPage> list(std::string_view type, std::string_view ns, std::string_view after,
                            std::size_t limit, TimePoint deadline);
  // expected "": whatever is there. The blobs stay until garbage collection.
  Status erase(std::string_view type, std::string_view ns, std::string_view name,
               std::string_view expected, TimePoint deadline);

 private:
  BankStore& store_;
  const Clock& clock_;
};

}  // namespace memslot
