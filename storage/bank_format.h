#pragma once
// The bank's bytes: limits of the interface, and keys and values of the RocksDB engine
// (docs/formats/bank.md is normative).
//
// Threads: pure functions.
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/base/digest.h"
#include "storage/bank_store.h"

namespace memslot::bank_format {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kMaxRecordId = 512;
inline constexpr std::size_t kMaxToken = 128;
inline constexpr std::size_t kMaxPage = 10'000;

// kInvalidArgument, naming limit and found.
Status check_record_id(std::string_view id);
Status check_token(std::string_view token);
Status check_metadata(std::string_view metadata);
Status check_page(std::size_t limit);
Status check_publish(std::string_view id, std::string_view expected, std::string_view token,
                     std::string_view metadata);
// The errors that both stores report in the same words.
Error record_missing(std::string_view id);
Error payload_missing(std::string_view token);
Error head_moved(std::string_view id, std::string_view expected, std::string_view found);
Error over_quota(std::uint64_t quota, std::uint64_t used, std::uint64_t more);
Error past_deadline(std::string_view what);

// Keys of the column family "default". One letter, then the name:
//   F                      the format record
//   h <id>                 head of a record
//   v <len><id> <number>   one version of it       len u16, number u64, both big-endian (sorted)
//   u <len><id> <token>    the number that this token published
//   n <id>                 the last number of an erased record
//   p <token>              PayloadEntry
std::string head_key(std::string_view id);
std::string version_prefix(std::string_view id);
std::string version_key(std::string_view id, std::uint64_t number);
std::string used_prefix(std::string_view id);
std::string used_key(std::string_view id, std::string_view token);
std::string last_number_key(std::string_view id);
std::string payload_key(std::string_view token);
inline constexpr std::string_view kFormatKey = "F";

// The least string that is greater than every string with this prefix; "" if there is none.
std::string after_prefix(std::string_view prefix);

std::string encode_number(std::uint64_t number);
Result<std::uint64_t> decode_number(std::string_view value);

// kCorruption for anything that encode did not write.
std::string encode_version(const RecordVersion& version);
Result<RecordVersion> decode_version(std::string_view value);

struct PayloadEntry {
  std::uint64_t bytes = 0;
  std::int64_t put_unix_ms = 0;
  Xxh128 digest;
};
std::string encode_payload_entry(const PayloadEntry& entry);
Result<PayloadEntry> decode_payload_entry(std::string_view value);

// "memslot-bank <version> <created unix ms>". kCorruption, kNotSupported (another version).
std::string encode_format(std::int64_t created_unix_ms);
Status check_format(std::string_view value);

}  // namespace memslot::bank_format
