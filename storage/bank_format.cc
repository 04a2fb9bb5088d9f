#include "storage/bank_format.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace memslot::bank_format {
namespace {

// Values: fixed-width little-endian numbers and length-prefixed texts, nothing after the last.
class Writer {
 public:
  Writer& number(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
    return *this;
  }
  Writer& text(std::string_view value) {
    number(value.size());
    out_.append(value);
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  Reader(std::string_view what, std::string_view in) : what_(what), in_(in) {}
  std::uint64_t number() {
    if (in_.size() < 8) return fail();
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(in_[i])) << (8 * i);
    }
    in_.remove_prefix(8);
    return value;
  }
  std::string text() {
    const std::uint64_t size = number();
    if (size > in_.size()) {
      fail();
      return {};
    }
    std::string value(in_.substr(0, size));
    in_.remove_prefix(size);
    return value;
  }
  Status finish() const {
    if (bad_ || !in_.empty()) return corrupt(what_, "a whole value", "other bytes");
    return ok();
  }

 private:
  std::uint64_t fail() {
    bad_ = true;
    in_ = {};
    return 0;
  }
  std::string_view what_;
  std::string_view in_;
  bool bad_ = false;
};

void append_big_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
}

std::string prefixed(char letter, std::string_view id) {
  std::string key(1, letter);
  append_big_endian(key, id.size(), 2);
  return key.append(id);
}

bool is_token_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == ':' || c == '-';
}

std::string quoted(std::string_view text) {
  return text.empty() ? "no record" : "'" + std::string(text) + "'";
}

}  // namespace

Status check_record_id(std::string_view id) {
  if (!id.empty() && id.size() <= kMaxRecordId) return ok();
  return invalid("record id", "1 to 512 bytes", id.size());
}

Status check_token(std::string_view token) {
  if (!token.empty() && token.size() <= kMaxToken &&
      std::all_of(token.begin(), token.end(), is_token_char)) {
    return ok();
  }
  return invalid("token", "1 to 128 of A-Z a-z 0-9 . _ : -",
                 token.size() > kMaxToken ? std::to_string(token.size()) + " bytes"
                                          : "'" + std::string(token) + "'");
}

Status check_metadata(std::string_view metadata) {
  if (metadata.size() <= kMaxMetadataBytes) return ok();
  return invalid("metadata bytes", "at most 1048576", metadata.size());
}

Status check_page(std::size_t limit) {
  if (limit >= 1 && limit <= kMaxPage) return ok();
  return invalid("page limit", "1 to 10000", limit);
}

Status check_publish(std::string_view id, std::string_view expected, std::string_view token,
                     std::string_view metadata) {
  MEMSLOT_TRY(check_record_id(id));
  if (!expected.empty()) {
    MEMSLOT_TRY(check_token(expected));
  }
  MEMSLOT_TRY(check_token(token));
  return check_metadata(metadata);
}

Error record_missing(std::string_view id) {
  return {ErrorCode::kNotFound, "record: expected '" + std::string(id) + "', found none"};
}

Error payload_missing(std::string_view token) {
  return {ErrorCode::kNotFound, "payload: expected '" + std::string(token) + "', found none"};
}

Error head_moved(std::string_view id, std::string_view expected, std::string_view found) {
  return {ErrorCode::kConflict, "head of " + std::string(id) + ": expected " + quoted(expected) +
                                    ", found " + quoted(found)};
}

Error over_quota(std::uint64_t quota, std::uint64_t used, std::uint64_t more) {
  return {ErrorCode::kNoSpace, "bank quota: expected at most " + std::to_string(quota) +
                                   " bytes, found " + std::to_string(used) + " used and " +
                                   std::to_string(more) + " more wanted"};
}

Error past_deadline(std::string_view what) {
  return {ErrorCode::kTimeout,
          std::string(what) + ": expected to begin before its deadline, found it past"};
}

std::string head_key(std::string_view id) { return std::string("h").append(id); }
std::string version_prefix(std::string_view id) { return prefixed('v', id); }
std::string version_key(std::string_view id, std::uint64_t number) {
  std::string key = version_prefix(id);
  append_big_endian(key, number, 8);
  return key;
}
std::string used_prefix(std::string_view id) { return prefixed('u', id); }
std::string used_key(std::string_view id, std::string_view token) {
  return used_prefix(id).append(token);
}
std::string last_number_key(std::string_view id) { return std::string("n").append(id); }
std::string payload_key(std::string_view token) { return std::string("p").append(token); }

std::string after_prefix(std::string_view prefix) {
  std::string bound(prefix);
  while (!bound.empty() && bound.back() == '\xff') bound.pop_back();
  if (!bound.empty())
    bound.back() = static_cast<char>(static_cast<unsigned char>(bound.back()) + 1);
  return bound;
}

std::string encode_number(std::uint64_t number) { return Writer().number(number).take(); }

Result<std::uint64_t> decode_number(std::string_view value) {
  Reader in("stored number", value);
  const auto number = in.number();
  MEMSLOT_TRY(in.finish());
  return number;
}

std::string encode_version(const RecordVersion& v) {
  return Writer().number(v.number).text(v.token).text(v.parent).text(v.metadata).take();
}

Result<RecordVersion> decode_version(std::string_view value) {
  Reader in("stored version", value);
  RecordVersion v;
  v.number = in.number();
  v.token = in.text();
  v.parent = in.text();
  v.metadata = in.text();
  MEMSLOT_TRY(in.finish());
  return v;
}

std::string encode_payload_entry(const PayloadEntry& e) {
  return Writer()
      .number(e.bytes)
      .number(static_cast<std::uint64_t>(e.put_unix_ms))
      .number(e.digest.low)
      .number(e.digest.high)
      .take();
}

Result<PayloadEntry> decode_payload_entry(std::string_view value) {
  Reader in("stored payload entry", value);
  PayloadEntry e;
  e.bytes = in.number();
  e.put_unix_ms = static_cast<std::int64_t>(in.number());
  e.digest.low = in.number();
  e.digest.high = in.number();
  MEMSLOT_TRY(in.finish());
  if (e.bytes > kMaxBlobBytes) return corrupt("stored payload bytes", "at most 67108864", e.bytes);
  return e;
}

std::string encode_format(std::int64_t created_unix_ms) {
  return "memslot-bank " + std::to_string(kVersion) + " " + std::to_string(created_unix_ms);
}

Status check_format(std::string_view value) {
  constexpr std::string_view kMagic = "memslot-bank ";
  if (!value.starts_with(kMagic))
    return corrupt("bank format record", "'memslot-bank'", "other text");
  value.remove_prefix(kMagic.size());
  std::uint32_t version = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), version);
  if (error != std::errc{} || end == value.data() + value.size() || *end != ' ') {
    return corrupt("bank format record", "a version and a time", "other text");
  }
  if (version == kVersion) return ok();
  return Error{ErrorCode::kNotSupported, "bank format: expected version " +
                                             std::to_string(kVersion) + ", found " +
                                             std::to_string(version)};
}

}  // namespace memslot::bank_format
