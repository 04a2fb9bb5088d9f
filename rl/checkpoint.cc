#include "rl/checkpoint.h"

#include <charconv>

#include "rl/features.h"
#include "shared/base/digest.h"
#include "shared/files/mapped_file.h"
#include "shared/files/safetensors.h"
#include "shared/files/write_file.h"
#include "shared/files/write_safetensors.h"

namespace memslot {
namespace {

constexpr std::string_view kFormat = "memslot-policy-1";
constexpr const char* kNotePrefix = "note.";

using Metadata = std::map<std::string, std::string>;

Result<std::string> text_in(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return corrupt("checkpoint metadata", key, "none");
  return found->second;
}

template <class Int>
Result<Int> number_in(const Metadata& metadata, const std::string& key) {
  MEMSLOT_TRY(const std::string text, text_in(metadata, key));
  Int value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return corrupt("checkpoint metadata " + key, "a number", text);
  }
  return value;
}

// What a damaged or hostile file may ask for is bounded before anything is made.
Status check_sizes(const ScorerConfig& c) {
  if (c.key_dim > 4096 || c.rank > 256 || c.hidden == 0 || c.hidden > 1024) {
    return corrupt("checkpoint sizes", "key_dim <= 4096, rank <= 256, hidden 1 to 1024",
                   std::to_string(c.key_dim) + ", " + std::to_string(c.rank) + ", " +
                       std::to_string(c.hidden));
  }
  return ok();
}

Status check_tensors(const Checkpoint& c) {
  for (const auto& [name, tensor] : c.tensors) {
    if (!all_finite(tensor.values)) {
      return corrupt("checkpoint tensor " + name, "finite numbers", "NaN or infinity");
    }
  }
  return ok();
}

}  // namespace

std::string Checkpoint::bytes() const {
  Metadata metadata = {
      {"format", std::string(kFormat)},
      {"feature_version", std::to_string(feature_version)},
      {"features", std::to_string(scorer.features)},
      {"key_dim", std::to_string(scorer.key_dim)},
      {"rank", std::to_string(scorer.rank)},
      {"hidden", std::to_string(scorer.hidden)},
      {"seed", std::to_string(seed)},
      {"update", std::to_string(update)},
      {"config_digest", config_digest},
      {"index_digest", index_digest},
  };
  for (const auto& [key, value] : notes) metadata[kNotePrefix + key] = value;
  return safetensors_bytes(tensors, metadata);
}

std::string Checkpoint::digest() const { return sha256(bytes_of(bytes())).hex(); }

Result<Checkpoint> Checkpoint::parse(std::string_view bytes) {
  const auto file = std::as_bytes(std::span(bytes));
  MEMSLOT_TRY(const SafetensorsIndex index, SafetensorsIndex::parse(file));
  const Metadata& metadata = index.metadata;
  MEMSLOT_TRY(const std::string format, text_in(metadata, "format"));
  if (format != kFormat) return memslot::mismatch("checkpoint format", kFormat, format);
  Checkpoint out;
  MEMSLOT_TRY(out.feature_version, number_in<std::uint32_t>(metadata, "feature_version"));
  MEMSLOT_TRY(out.scorer.features, number_in<std::uint32_t>(metadata, "features"));
  MEMSLOT_TRY(out.scorer.key_dim, number_in<std::uint32_t>(metadata, "key_dim"));
  MEMSLOT_TRY(out.scorer.rank, number_in<std::uint32_t>(metadata, "rank"));
  MEMSLOT_TRY(out.scorer.hidden, number_in<std::uint32_t>(metadata, "hidden"));
  MEMSLOT_TRY(out.seed, number_in<std::uint64_t>(metadata, "seed"));
  MEMSLOT_TRY(out.update, number_in<std::uint64_t>(metadata, "update"));
  MEMSLOT_TRY(out.config_digest, text_in(metadata, "config_digest"));
  MEMSLOT_TRY(out.index_digest, text_in(metadata, "index_digest"));
  for (const auto& [key, value] : metadata) {
    if (key.starts_with(kNotePrefix))
      out.notes[key.substr(std::string(kNotePrefix).size())] = value;
  }
  if (out.feature_version != kFeatureVersion || out.scorer.features != feature_count()) {
    return mismatch("checkpoint's features",
                    "version " + std::to_string(kFeatureVersion) + " (" +
                        std::to_string(feature_count()) + " of them)",
                    "version " + std::to_string(out.feature_version) + " (" +
                        std::to_string(out.scorer.features) + ")");
  }
  MEMSLOT_TRY(check_sizes(out.scorer));
  for (const auto& [name, entry] : index.tensors) {
    MEMSLOT_TRY(out.tensors[name], read_f32(file, entry));
  }
  MEMSLOT_TRY(check_tensors(out));
  return out;
}

Status Checkpoint::save(const std::string& path) const { return write_file(path, bytes()); }

Result<Checkpoint> Checkpoint::load(const std::string& path) {
  return parse_file<Checkpoint>(path);
}

}  // namespace memslot
