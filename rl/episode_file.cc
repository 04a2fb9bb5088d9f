#include "rl/episode_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "shared/files/safetensors.h"
#include "shared/files/write_safetensors.h"

namespace memslot {
namespace {

constexpr std::int64_t kColumns = 6;
constexpr float kMostCandidates = 4096;

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

HostTensor rows_of(std::vector<float> values, std::uint32_t columns) {
  const auto n = static_cast<std::int64_t>(columns == 0 ? 0 : values.size() / columns);
  return {Shape{n, static_cast<std::int64_t>(columns)}, std::move(values)};
}

// Hands out a tensor's values from the front.
class Reader {
 public:
  explicit Reader(const HostTensor& tensor) : values_(tensor.values) {}
  Result<std::vector<float>> take(std::size_t count) {
    if (count > values_.size()) return corrupt("episode's values", count, values_.size());
    std::vector<float> out(values_.begin(), values_.begin() + static_cast<std::ptrdiff_t>(count));
    values_ = values_.subspan(count);
    return out;
  }
  bool empty() const { return values_.empty(); }

 private:
  std::span<const float> values_;
};

Result<HostTensor> tensor_in(const SafetensorsIndex& index, std::span<const std::byte> file,
                             const std::string& name) {
  const auto found = index.tensors.find(name);
  if (found == index.tensors.end()) return corrupt("episode tensor", name, "none");
  return read_f32(file, found->second);
}

}  // namespace

std::string episode_bytes(const Episode& episode, std::uint32_t features, std::uint32_t key_dim) {
  std::vector<float> all_features, queries, keys, steps;
  for (const EpisodeStep& step : episode.steps) {
    const bool has_query = !step.query.empty() && !step.keys.empty();
    append(all_features, step.features);
    if (has_query) append(queries, step.query);
    if (has_query) append(keys, step.keys);
    append(steps, {static_cast<float>(step.candidates), has_query ? 1.0f : 0.0f,
                   static_cast<float>(step.action), step.log_prob, step.reward,
                   step.trains ? 1.0f : 0.0f});
  }
  return safetensors_bytes({{"features", rows_of(std::move(all_features), features)},
                            {"query", rows_of(std::move(queries), key_dim)},
                            {"keys", rows_of(std::move(keys), key_dim)},
                            {"steps", rows_of(std::move(steps), kColumns)}},
                           {{"snapshot", std::to_string(episode.snapshot)}});
}

Result<Episode> parse_episode(const std::string& bytes, std::uint32_t features,
                              std::uint32_t key_dim) {
  const auto file = std::as_bytes(std::span(bytes));
  MEMSLOT_TRY(const SafetensorsIndex index, SafetensorsIndex::parse(file));
  MEMSLOT_TRY(const HostTensor steps, tensor_in(index, file, "steps"));
  MEMSLOT_TRY(const HostTensor all_features, tensor_in(index, file, "features"));
  MEMSLOT_TRY(const HostTensor queries, tensor_in(index, file, "query"));
  MEMSLOT_TRY(const HostTensor all_keys, tensor_in(index, file, "keys"));
  Reader table(steps), feature(all_features), query(queries), key(all_keys);
  Episode out;
  const auto snapshot = index.metadata.find("snapshot");
  if (snapshot != index.metadata.end()) {
    const std::string& text = snapshot->second;
    std::from_chars(text.data(), text.data() + text.size(), out.snapshot);
  }
  while (!table.empty()) {
    MEMSLOT_TRY(const auto row, table.take(kColumns));
    const bool usable = row[0] >= 1 && row[0] <= kMostCandidates && row[2] >= 0 && row[2] < row[0];
    if (!usable) return corrupt("episode's step", "an action of 1 to 4096", "another");
    EpisodeStep step;
    step.candidates = static_cast<std::uint32_t>(row[0]);
    step.action = static_cast<std::uint32_t>(row[2]);
    step.log_prob = row[3];
    step.reward = row[4];
    step.trains = row[5] != 0;
    MEMSLOT_TRY(step.features, feature.take(std::size_t{step.candidates} * features));
    if (row[1] != 0) {
      MEMSLOT_TRY(step.query, query.take(key_dim));
      MEMSLOT_TRY(step.keys, key.take(std::size_t{step.candidates} * key_dim));
    }
    out.steps.push_back(std::move(step));
  }
  if (const auto fits = check_episode(out, features, key_dim); !fits) {
    return corrupt("episode", "one that fits", fits.error().message);
  }
  return out;
}

}  // namespace memslot
