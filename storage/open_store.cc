#include "storage/open_store.h"

#include "storage/memory_store.h"
#include "storage/rocksdb_store.h"

namespace memslot {

Result<std::unique_ptr<BankStore>> open_store(const std::string& location,
                                              const StoreOptions& options, const Clock& clock) {
  if (location.empty()) return invalid("bank location", "'memory:' or a directory", "nothing");
  if (location == "memory:") {
    return std::unique_ptr<BankStore>(std::make_unique<MemoryStore>(clock, options.quota_bytes));
  }
  return open_rocksdb_store(location, options, clock);
}

Status restore_store(const std::string& from, const std::string& to) {
  if (to.empty() || to == "memory:") {
    return invalid("restore target", "an empty or absent directory", to.empty() ? "nothing" : to);
  }
  return restore_rocksdb_store(from, to);
}

}  // namespace memslot
