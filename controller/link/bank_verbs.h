#pragma once
// What the verbs "bank.*" do, each a function of the bank and its arguments: JSON out.
//
// Threads: any; they run on a worker.
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/bytes.h"
#include "storage/memory_bank.h"

namespace memslot::bank_verbs {

struct ListQuery {
  std::vector<std::string> namespaces;  // that the client sees and asked for; ascending
  std::string prefix, source, after;
  std::size_t limit = 100;
};
// A list in a reply ends with the element that fills so much: an envelope holds 4 MiB.
inline constexpr std::size_t kPageBytes = std::size_t{2} << 20;

Result<std::string> list(MemoryBank& bank, const ListQuery& query, TimePoint deadline);
Result<std::string> show(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline);
// The versions above `after`, oldest first.
Result<std::string> history(MemoryBank& bank, const MemoryRef& ref, std::uint64_t after,
                            TimePoint deadline);
Result<std::string> rollback(MemoryBank& bank, const Clock& clock, const MemoryRef& ref,
                             std::uint64_t to, TimePoint deadline);
Result<std::string> erase(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline);
struct Exported {
  std::string json;
  SharedBytes file;
};
Result<Exported> export_file(MemoryBank& bank, const MemoryRef& ref, TimePoint deadline);
struct Imported {
  std::string json;
  MemoryRef ref;
};
Result<Imported> import_file(MemoryBank& bank, std::span<const std::byte> file, std::string_view ns,
                             std::string_view id, TimePoint deadline);
Result<std::string> backup(MemoryBank& bank, const std::string& directory, TimePoint deadline);
Result<std::string> usage(MemoryBank& bank, std::size_t memories, TimePoint deadline);
// `sees`: damage in what the client may not see is counted, not named.
std::string verified(const VerifyReport& report,
                     const std::function<bool(std::string_view ns)>& sees);

}  // namespace memslot::bank_verbs
