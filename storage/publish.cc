#include "storage/publish.h"

#include "storage/bank_format.h"

namespace memslot {

Result<RecordVersion> publish_resolved(BankStore& store, std::string_view id,
                                       std::string_view expected, std::string_view token,
                                       std::string_view metadata, TimePoint deadline) {
  constexpr int kTries = 3;
  for (int i = 0;; ++i) {
    auto published = store.publish(id, expected, token, metadata, deadline);
    if (published || published.error().code != ErrorCode::kIndeterminate) return published;
    const auto head = store.head(id, deadline);
    if (!head && head.error().code != ErrorCode::kNotFound) return published;  // still unknown
    const std::string found = head ? head.value().token : "";
    if (found == token) return head;
    if (found != expected) return bank_format::head_moved(id, expected, found);
    if (i + 1 == kTries) return published;
  }
}

}  // namespace memslot
