#include "rl/checkpoint.h"

#include <charconv>
#include <cmath>

#include "rl/features.h"
#include "shared/base/digest.h"
#include "shared/files/mapped_file.h"
#include "shared/files/safetensors.h"
#include "shared/files/write_file.h"
#include "shared/files/write_safetensors.h"

namespace memslot {
namespace {

constexpr std::string_view kFormat = "memslot-policy-2";
constexpr const char* kNotePrefix = "note.";
constexpr const char* kWhiteningPrefix = "whitening.";

using Metadata = std::map<std::string, std::string>;

Result<std::string> text_in(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return corrupt("checkpoint metadata", key, "none");
  return found->second;
}

template <class Number>
Result<Number> number_in(const Metadata& metadata, const std::string& key) {
  MEMSLOT_TRY(const std::string text, text_in(metadata, key));
  Number value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    return corrupt("checkpoint metadata " + key, "a number", text);
  }
  return value;
}

// The shortest text that is read back as the same number.
std::string text_of(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

void put(const PolicyTask& task, Metadata& to) {
  to["model"] = task.model;
  to["layer"] = std::to_string(task.layer);
  to["window_tokens"] = std::to_string(task.window_tokens);
  to["long_window_tokens"] = std::to_string(task.long_window_tokens);
  to["candidates"] = std::to_string(task.candidates);
  to["swap_cost"] = text_of(task.swap_cost);
  to["generic_gain"] = text_of(task.generic_gain);
}

Result<PolicyTask> task_in(const Metadata& metadata) {
  PolicyTask out;
  MEMSLOT_TRY(out.model, text_in(metadata, "model"));
  MEMSLOT_TRY(out.layer, number_in<std::int32_t>(metadata, "layer"));
  MEMSLOT_TRY(out.window_tokens, number_in<std::uint32_t>(metadata, "window_tokens"));
  MEMSLOT_TRY(out.long_window_tokens, number_in<std::uint32_t>(metadata, "long_window_tokens"));
  MEMSLOT_TRY(out.candidates, number_in<std::uint32_t>(metadata, "candidates"));
  MEMSLOT_TRY(out.swap_cost, number_in<float>(metadata, "swap_cost"));
  MEMSLOT_TRY(out.generic_gain, number_in<float>(metadata, "generic_gain"));
  if (!std::isfinite(out.swap_cost) || !std::isfinite(out.generic_gain)) {
    return corrupt("checkpoint's swap_cost and generic_gain", "finite numbers", "NaN or infinity");
  }
  return out;
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

// Out of the tensors, where all of a file's are at first.
Status take_whitening(const Metadata& metadata, Checkpoint& out) {
  MEMSLOT_TRY(const auto rows, number_in<std::uint64_t>(metadata, "whitening_rows"));
  MEMSLOT_TRY(out.whitening,
              Whitening::restore(out.tensors, kWhiteningPrefix, rows, /*version=*/0));
  std::erase_if(out.tensors, [](const auto& t) { return t.first.starts_with(kWhiteningPrefix); });
  MEMSLOT_TRY(const std::string digest, text_in(metadata, "whitening_digest"));
  if (digest != out.whitening.digest()) {
    return corrupt("checkpoint's whitening", digest, out.whitening.digest());
  }
  if (out.whitening.dim() > 0 && out.whitening.reduced_dim() != out.scorer.key_dim) {
    return memslot::mismatch("checkpoint's whitening", out.scorer.key_dim,
                             out.whitening.reduced_dim());
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
      {"whitening_rows", std::to_string(whitening.fitted_rows())},
      {"whitening_digest", whitening.digest()},
  };
  put(task, metadata);
  for (const auto& [key, value] : notes) metadata[kNotePrefix + key] = value;
  if (whitening.dim() == 0) return safetensors_bytes(tensors, metadata);
  std::map<std::string, HostTensor> all = tensors;
  whitening.store(kWhiteningPrefix, all);
  return safetensors_bytes(all, metadata);
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
  MEMSLOT_TRY(out.task, task_in(metadata));
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
  MEMSLOT_TRY(take_whitening(metadata, out));
  return out;
}

Status Checkpoint::save(const std::string& path) const { return write_file(path, bytes()); }

Result<Checkpoint> Checkpoint::load(const std::string& path) {
  return parse_file<Checkpoint>(path);
}

}  // namespace memslot
