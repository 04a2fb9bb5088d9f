#pragma once
// The metadata text of each type of record (docs/formats/bank.md): JSON whose "parts" object names
// the payloads that the version refers to, whatever the type, so that garbage collection needs no
// other knowledge.
//
// Errors: every decoder returns kCorruption for text that its encoder did not write.
// Threads: pure functions.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/memory/record.h"
#include "storage/bank_store.h"
#include "storage/document_bank.h"
#include "storage/memory_bank.h"

namespace memslot {

inline constexpr std::size_t kMaxMemoryMetadata = std::size_t{64} << 10;

struct PartTokens {
  std::string payload;
  std::string keys;    // "" without keys
  std::string source;  // "" without source text
};

struct StoredMemory {
  MemoryVersion version;
  PartTokens parts;
};

std::string memory_record_id(const MemoryRef& ref);
std::string branch_record_id(const MemoryRef& ref, std::string_view token);
std::string tombstone_record_id(const MemoryRef& ref);
std::string statistics_record_id(const MemoryRef& ref);

// Tokens of the payloads that a version with this metadata refers to.
Result<std::vector<std::string>> referenced_payloads(std::string_view metadata);

std::string encode_memory(const StoredMemory& memory);
// Version number and token are the record's. A branch has version number 0.
Result<StoredMemory> decode_memory(const RecordVersion& record);

struct TombstoneRecord {
  MemoryBank::Tombstone tombstone;
  std::vector<std::string> tokens;  // of erased versions: their retries must not bring them back
  // Whether their bytes are gone from the disk; an erase that was interrupted before is repeated.
  bool finished = false;
};
std::string encode_tombstone(const TombstoneRecord& record);
Result<TombstoneRecord> decode_tombstone(std::string_view metadata);

std::string encode_statistics(const MemoryStatistics& statistics);
Result<MemoryStatistics> decode_statistics(std::string_view metadata);

std::string encode_document(const Document& document);
// name is left empty; token and number are the record's.
Result<Document> decode_document(const RecordVersion& record);
bool is_json(std::string_view text);

}  // namespace memslot
