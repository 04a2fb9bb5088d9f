#pragma once
// What a listing of the bank is searched and sorted by: a row for every memory's head, in memory
// (some 350 bytes each), so that a page of 100,000 is found without reading the bank.
//
// It is derived: index_keeper.h keeps it equal to the bank, along with the index.
//
// Concurrency: any thread. A search holds the lock for some thousand rows at a time, so that a step
//              waits for no search; a memory that changes meanwhile is seen before or after it.
#include <atomic>
#include <cstdint>
#include <functional>  // less
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "shared/base/error.h"
#include "shared/memory/record.h"

namespace memslot {

struct CatalogRow {
  std::string ns, id, source;
  std::uint64_t version = 0;
  MemoryKind kind = MemoryKind::kMlp;
  VersionOrigin origin = VersionOrigin::kLearned;
  std::int32_t layer = 0;
  std::uint32_t keys = 0;
  std::uint64_t payload_bytes = 0;
  std::int64_t created_unix_ms = 0;
  double nll_before = 0, nll_after = 0;
  std::optional<double> recall;
  std::uint64_t uses = 0, gains = 0;
  double mean_net_gain = 0;  // nats per token, over `gains`
};

enum class CatalogOrder { kId, kSource, kCreated, kVersion, kBytes, kKeys, kUses, kGain, kRecall };
Result<CatalogOrder> parse_catalog_order(std::string_view name);

struct CatalogQuery {
  std::vector<std::string> namespaces;  // that may be seen
  std::string text;                     // in namespace/id or source, whatever its ASCII case
  std::optional<std::string> source;    // exactly this one
  std::optional<MemoryKind> kind;
  CatalogOrder order = CatalogOrder::kId;
  bool descending = false;
  std::size_t offset = 0, limit = 50;
};

struct CatalogPage {
  std::size_t total = 0;         // that match
  std::vector<CatalogRow> rows;  // [offset, offset + limit) of them; ties by namespace and id
};

class Catalog {
 public:
  Catalog();
  ~Catalog();
  void put(const MemoryVersion& head, std::uint64_t uses, std::uint64_t gains,
           double mean_net_gain);
  void erase(std::string_view ns, std::string_view id);
  // As CandidateIndex::note_use().
  void note_use(std::string_view ns, std::string_view id, const float* net_gain);
  CatalogPage find(const CatalogQuery& query) const;
  std::vector<std::string> namespaces() const;  // that hold a memory, ascending
  std::size_t size() const;

 private:
  struct Entry;
  using EntryPtr = std::shared_ptr<Entry>;
  std::vector<EntryPtr> copy_of(std::size_t from) const;

  mutable std::mutex mutex_;
  std::vector<EntryPtr> slots_;    // guarded by mutex_; null: free
  std::vector<std::size_t> free_;  // guarded by mutex_
  // By "<ns>/<id>", which is the entry's own; guarded by mutex_.
  std::unordered_map<std::string_view, std::size_t> where_;
  // Memories by namespace; guarded by mutex_.
  std::map<std::string, std::size_t, std::less<>> held_;
};

}  // namespace memslot
