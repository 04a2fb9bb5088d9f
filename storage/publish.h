#pragma once
// BankStore::publish() with an indeterminate outcome resolved: re-read
// the head and compare tokens; if the publish did not happen, try it again (the token makes that
// safe).
#include <string>
#include <string_view>

#include "storage/bank_store.h"

namespace memslot {

// kConflict: the head is neither `expected` nor `token` (which may still be in the history).
// kIndeterminate: still unknown after three tries; the caller may retry with the same token.
Result<RecordVersion> publish_resolved(BankStore& store, std::string_view id,
                                       std::string_view expected, std::string_view token,
                                       std::string_view metadata, TimePoint deadline);

}  // namespace memslot
