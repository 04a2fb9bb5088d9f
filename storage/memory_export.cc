// MemoryBank: one version as one file, and back. Bytes: docs/formats/memory.md, "Export".
#include <array>
#include <cstring>

#include "storage/bank_format.h"
#include "storage/key_block.h"
#include "storage/memory_bank.h"
#include "storage/record_metadata.h"

namespace memslot {
namespace {

constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kLengths = 4;  // manifest, payload, keys, source
constexpr std::size_t kHeaderBytes = 4 + 4 + 8 * kLengths;
constexpr std::size_t kDigestBytes = 32;

using Bytes = std::span<const std::byte>;

struct ExportFile {
  MemoryVersion version;
  Bytes payload;
  Bytes keys;  // empty: none
  Bytes source;
};

void append(std::vector<std::byte>& out, Bytes bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> encode_export(const std::array<Bytes, kLengths>& sections) {
  std::vector<std::byte> out;
  std::size_t total = kHeaderBytes + kDigestBytes;
  for (const auto& section : sections) total += section.size();
  out.reserve(total);
  append(out, bytes_of("MSE1"));
  append(out, std::as_bytes(std::span(&kFormat, 1)));
  for (const auto& section : sections) {
    const std::uint64_t size = section.size();
    append(out, std::as_bytes(std::span(&size, 1)));
  }
  for (const auto& section : sections) append(out, section);
  const auto digest = sha256(out);
  append(out, std::as_bytes(std::span(digest.bytes)));
  return out;
}

Status check_digest(Bytes file) {
  if (file.size() < 4 || std::memcmp(file.data(), "MSE1", 4) != 0) {
    return corrupt("export magic", "'MSE1'",
                   file.size() < 4 ? "fewer than 4 bytes" : "other bytes");
  }
  if (file.size() < kHeaderBytes + kDigestBytes) {
    return corrupt("export bytes", "72 or more", file.size());
  }
  std::uint32_t format = 0;
  std::memcpy(&format, file.data() + 4, sizeof(format));
  if (format != kFormat) {
    return Error{ErrorCode::kNotSupported,
                 "export format: expected 1, found " + std::to_string(format)};
  }
  Sha256 stored;
  std::memcpy(stored.bytes.data(), file.data() + file.size() - kDigestBytes, kDigestBytes);
  const auto found = sha256(file.first(file.size() - kDigestBytes));
  if (stored != found) return corrupt("export SHA-256", stored.hex(), found.hex());
  return ok();
}

Result<ExportFile> parse_export(Bytes file) {
  MEMSLOT_TRY(check_digest(file));
  constexpr std::array<std::uint64_t, kLengths> kLimits = {kMaxMetadataBytes, kMaxPayloadBytes,
                                                           kMaxBlobBytes, kMaxBlobBytes};
  std::array<std::uint64_t, kLengths> sizes{};
  std::memcpy(sizes.data(), file.data() + 8, sizeof(sizes));
  std::uint64_t expected = kHeaderBytes + kDigestBytes;
  for (std::size_t i = 0; i < kLengths; ++i) {
    if (sizes[i] > kLimits[i]) return corrupt("export section bytes", kLimits[i], sizes[i]);
    expected += sizes[i];
  }
  if (file.size() != expected) return corrupt("export bytes", expected, file.size());
  std::array<Bytes, kLengths> sections;
  std::size_t at = kHeaderBytes;
  for (std::size_t i = 0; i < kLengths; ++i) {
    sections[i] = file.subspan(at, sizes[i]);
    at += sizes[i];
  }
  ExportFile out{{}, sections[1], sections[2], sections[3]};
  const std::string_view manifest(reinterpret_cast<const char*>(sections[0].data()),
                                  sections[0].size());
  auto version = memory_version_from_json(manifest);
  if (!version) return version.error().with_context("export manifest");
  out.version = std::move(version).value();
  return out;
}

// The same version in the same place has the same token, whoever imports it, however often.
std::string import_token(const MemoryVersion& version, const MemoryRef& target) {
  const std::string name =
      version.token + "\n" + version.sha256.hex() + "\n" + target.ns + "/" + target.id;
  return "import-" + sha256(bytes_of(name)).hex().substr(0, 40);
}

}  // namespace

Result<std::vector<std::byte>> MemoryBank::export_memory(const MemoryRef& ref, TimePoint deadline) {
  MEMSLOT_TRY(const auto chosen, version(ref, deadline));
  MEMSLOT_TRY(const auto memory, find(chosen.ref, chosen.token, deadline));
  MEMSLOT_TRY(const auto payload, store_.get_payload(memory.parts.payload, deadline));
  if (const auto digest = sha256(payload); digest != memory.version.sha256) {
    return corrupt("payload SHA-256 of " + chosen.ref.text(), memory.version.sha256.hex(),
                   digest.hex());
  }
  std::vector<std::byte> keys, source;
  if (!memory.parts.keys.empty()) {
    MEMSLOT_TRY(keys, store_.get_payload(memory.parts.keys, deadline));
  }
  if (!memory.parts.source.empty()) {
    MEMSLOT_TRY(source, store_.get_payload(memory.parts.source, deadline));
  }
  const std::string manifest = to_json(memory.version);
  return encode_export({bytes_of(manifest), payload, keys, source});
}

Result<MemoryVersion> MemoryBank::import_memory(std::span<const std::byte> file,
                                                std::string_view ns, std::string_view new_id,
                                                TimePoint deadline) {
  MEMSLOT_TRY(const auto parsed, parse_export(file));
  MemoryDraft draft;
  draft.meta = parsed.version;
  draft.meta.ref = {std::string(ns), new_id.empty() ? parsed.version.ref.id : std::string(new_id),
                    0};
  draft.meta.token = import_token(parsed.version, draft.meta.ref);
  draft.meta.origin = VersionOrigin::kImported;
  draft.meta.origin_id = parsed.version.ref.text() + " " + parsed.version.token;
  draft.meta.parent.clear();
  draft.meta.created_unix_ms = 0;
  draft.payload = parsed.payload;
  MemoryKeys keys;
  if (!parsed.keys.empty()) {
    MEMSLOT_TRY(keys, decode_keys(parsed.keys));
    draft.keys = &keys;
  }
  const std::string_view source(reinterpret_cast<const char*>(parsed.source.data()),
                                parsed.source.size());
  if (!source.empty()) draft.source_text = source;
  MEMSLOT_TRY(check_draft(draft));

  const std::lock_guard lock(stripe(draft.meta.ref));
  const auto current = store_.head(memory_record_id(draft.meta.ref), deadline);
  if (current) {
    const auto imported = find(draft.meta.ref, draft.meta.token, deadline);
    if (imported) return imported.value().version;
    if (imported.error().code != ErrorCode::kNotFound) return imported.error();
    draft.expected = current.value().token;
  } else if (current.error().code != ErrorCode::kNotFound) {
    return current.error();
  }
  MEMSLOT_TRY(auto published, publish_locked(draft, /*refuse_erased=*/false, deadline));
  if (published.conflict()) {
    return bank_format::head_moved(memory_record_id(draft.meta.ref), draft.expected,
                                   published.head_token);
  }
  return std::move(published.version);
}

}  // namespace memslot
