#include "rl/gain_table.h"

#include <algorithm>
#include <cmath>
#include <functional>  // greater_equal
#include <nlohmann/json.hpp>
#include <utility>

#include "rl/features.h"
#include "rl/table_names.h"
#include "shared/base/rng.h"
#include "shared/files/mapped_file.h"
#include "shared/files/safetensors.h"
#include "shared/files/write_file.h"
#include "shared/files/write_safetensors.h"

namespace memslot {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "memslot-gains-2";
constexpr std::string_view kFormatOne = "memslot-gains-1";  // without `scored`: all are

// Reads the metadata's JSON; remembers the first thing that is wrong.
class Reader {
 public:
  template <class T>
  void get(const json& from, const char* key, T& to) {
    const auto found = from.is_object() ? from.find(key) : from.end();
    if (found == from.end()) return fail(key);
    try {
      found->get_to(to);
    } catch (const json::exception&) {
      fail(key);
    }
  }
  template <class Enum, std::size_t N>
  void get(const json& from, const char* key, const EnumNames<Enum, N>& names, Enum& to) {
    std::string text;
    get(from, key, text);
    for (const auto& [value, name] : names) {
      if (name == text) {
        to = value;
        return;
      }
    }
    fail(key);
  }
  const json& list(const json& from, const char* key) {
    static const json kNone = json::array();
    const auto found = from.is_object() ? from.find(key) : from.end();
    if (found != from.end() && found->is_array()) return *found;
    fail(key);
    return kNone;
  }
  Status status() const {
    if (wrong_.empty()) return ok();
    return corrupt("gain table's " + wrong_, "a value of its kind", "none or another");
  }

 private:
  void fail(const char* key) {
    if (wrong_.empty()) wrong_ = key;
  }
  std::string wrong_;
};

json describe(const GainTable& t) {
  json out = {{"model", t.model},
              {"layer", t.layer},
              {"step_tokens", t.step_tokens},
              {"seed", t.seed},
              {"generic", t.generic},
              {"sources", json::array()},
              {"memories", json::array()},
              {"streams", json::array()}};
  for (const TableSource& s : t.sources) {
    out["sources"].push_back(
        {{"name", s.name}, {"split", name_in(kSplitNames, s.split)}, {"has_memory", s.has_memory}});
  }
  for (const TableMemory& m : t.memories) {
    out["memories"].push_back({{"ref", m.ref.text()},
                               {"kind", std::string(memory_kind_name(m.kind))},
                               {"source", m.source},
                               {"first_key", m.first_key},
                               {"keys", m.keys},
                               {"wise_min_activation", m.wise_min_activation}});
  }
  for (const TableStream& s : t.streams) {
    json tokens = json::array(), sources = json::array(), covered = json::array();
    for (const TableStep& step : s.steps) {
      tokens.push_back(step.tokens);
      sources.push_back(step.source);
      covered.push_back(step.covered);
    }
    out["streams"].push_back({{"id", s.id},
                              {"kind", name_in(kStreamKindNames, s.kind)},
                              {"split", name_in(kSplitNames, s.split)},
                              {"first", s.first},
                              {"tokens", tokens},
                              {"sources", sources},
                              {"covered", covered}});
    if (!s.scored.empty()) out["streams"].back()["scored"] = s.scored;
  }
  return out;
}

void read_memories(Reader& read, const json& from, GainTable& t) {
  for (const json& item : read.list(from, "memories")) {
    TableMemory m;
    std::string ref, kind;
    read.get(item, "ref", ref);
    read.get(item, "kind", kind);
    read.get(item, "source", m.source);
    read.get(item, "first_key", m.first_key);
    read.get(item, "keys", m.keys);
    read.get(item, "wise_min_activation", m.wise_min_activation);
    if (auto parsed = MemoryRef::parse(ref)) m.ref = std::move(parsed).value();
    if (const auto parsed = parse_memory_kind(kind)) m.kind = parsed.value();
    t.memories.push_back(std::move(m));
  }
}

void read_streams(Reader& read, const json& from, GainTable& t) {
  for (const json& item : read.list(from, "streams")) {
    TableStream s;
    std::vector<std::uint32_t> tokens;
    std::vector<std::int32_t> sources;
    std::vector<bool> covered;
    read.get(item, "id", s.id);
    read.get(item, "kind", kStreamKindNames, s.kind);
    read.get(item, "split", kSplitNames, s.split);
    read.get(item, "first", s.first);
    read.get(item, "tokens", tokens);
    read.get(item, "sources", sources);
    read.get(item, "covered", covered);
    if (item.is_object() && item.contains("scored")) read.get(item, "scored", s.scored);
    const std::size_t n = std::min({tokens.size(), sources.size(), covered.size()});
    for (std::size_t i = 0; i < n; ++i) s.steps.push_back({tokens[i], sources[i], covered[i]});
    t.streams.push_back(std::move(s));
  }
}

Result<GainTable> read_description(const std::string& text) {
  const json from = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!from.is_object())
    return corrupt("gain table's description", "a JSON object", "something else");
  GainTable t;
  Reader read;
  read.get(from, "model", t.model);
  read.get(from, "layer", t.layer);
  read.get(from, "step_tokens", t.step_tokens);
  read.get(from, "seed", t.seed);
  read.get(from, "generic", t.generic);
  for (const json& item : read.list(from, "sources")) {
    TableSource s;
    read.get(item, "name", s.name);
    read.get(item, "split", kSplitNames, s.split);
    read.get(item, "has_memory", s.has_memory);
    t.sources.push_back(std::move(s));
  }
  read_memories(read, from, t);
  read_streams(read, from, t);
  MEMSLOT_TRY(read.status());
  return t;
}

Status check(const GainTable& t) {
  const std::int64_t rows = t.hidden.shape.rank() == 2 ? t.hidden.shape[0] : -1;
  const std::int64_t dim = rows < 0 ? -1 : t.hidden.shape[1];
  const auto m = static_cast<std::int64_t>(t.memories.size());
  const std::int64_t keys = t.keys.shape.rank() == 2 ? t.keys.shape[0] : -1;
  const std::pair<const HostTensor*, Shape> expected[] = {
      {&t.gain, Shape{std::max<std::int64_t>(rows, 0), m}},
      {&t.activation, Shape{std::max<std::int64_t>(rows, 0), m}},
      {&t.entropy, Shape{std::max<std::int64_t>(rows, 0), m + 1}},
      {&t.surprise, Shape{std::max<std::int64_t>(rows, 0), m + 1}},
      {&t.keys, Shape{std::max<std::int64_t>(keys, 0), std::max<std::int64_t>(dim, 0)}},
  };
  for (const auto& [tensor, shape] : expected) {
    if (rows < 0 || keys < 0 || tensor->shape != shape) {
      return corrupt("gain table's tensors", shape.text(), tensor->shape.text());
    }
    if (!all_finite(tensor->values))
      return corrupt("gain table", "finite numbers", "NaN or infinity");
  }
  if (!all_finite(t.hidden.values))
    return corrupt("gain table", "finite numbers", "NaN or infinity");
  const auto sources = static_cast<std::int32_t>(t.sources.size());
  const auto of_a_source = [&](std::int32_t s) { return s >= -1 && s < sources; };
  for (const TableMemory& memory : t.memories) {
    if (!of_a_source(memory.source) || memory.first_key > keys ||
        memory.keys > keys - memory.first_key) {
      return corrupt("gain table's memory " + memory.ref.text(), "a source and keys of the table",
                     "others");
    }
  }
  for (const TableStream& s : t.streams) {
    if (s.first > static_cast<std::uint64_t>(rows) ||
        s.steps.size() > static_cast<std::uint64_t>(rows) - s.first ||
        !std::all_of(s.steps.begin(), s.steps.end(),
                     [&](const TableStep& step) { return of_a_source(step.source); })) {
      return corrupt("gain table's stream " + s.id, "steps and sources of the table", "others");
    }
  }
  for (const std::uint32_t g : t.generic) {
    if (g >= t.memories.size()) return corrupt("gain table's generic", t.memories.size(), g);
  }
  return ok();
}

// Ascending places of memories, the generic ones among them.
Status check_scored(const GainTable& t) {
  for (const TableStream& s : t.streams) {
    if (s.scored.empty()) continue;
    const bool rising = std::adjacent_find(s.scored.begin(), s.scored.end(),
                                           std::greater_equal<>()) == s.scored.end();
    const bool generic =
        std::all_of(t.generic.begin(), t.generic.end(), [&](std::uint32_t m) { return s.has(m); });
    if (!rising || s.scored.back() >= t.memories.size() || !generic) {
      return corrupt("gain table's stream " + s.id,
                     "scored memories in rising order, the generic ones among them", "others");
    }
  }
  return ok();
}

}  // namespace

float GainTable::generic_of(std::uint64_t row, std::int32_t source) const {
  double sum = 0;
  std::size_t count = 0;
  for (const std::uint32_t m : generic) {
    if (source >= 0 && memories[m].source == source) continue;
    sum += static_cast<double>(gain_of(row, m));
    ++count;
  }
  return count == 0 ? 0.0f : std::max(0.0f, static_cast<float>(sum / static_cast<double>(count)));
}

std::string GainTable::bytes() const {
  return safetensors_bytes({{"hidden", hidden},
                            {"gain", gain},
                            {"entropy", entropy},
                            {"surprise", surprise},
                            {"activation", activation},
                            {"keys", keys}},
                           {{"format", std::string(kFormat)}, {"table", describe(*this).dump()}});
}

Result<GainTable> GainTable::parse(std::string_view bytes) {
  const auto file = std::as_bytes(std::span(bytes));
  MEMSLOT_TRY(const SafetensorsIndex index, SafetensorsIndex::parse(file));
  const auto format = index.metadata.find("format"), table = index.metadata.find("table");
  if (format == index.metadata.end() || table == index.metadata.end() ||
      (format->second != kFormat && format->second != kFormatOne)) {
    return corrupt("gain table's format", kFormat,
                   format == index.metadata.end() ? std::string("none") : format->second);
  }
  MEMSLOT_TRY(GainTable out, read_description(table->second));
  const std::pair<const char*, HostTensor*> tensors[] = {
      {"hidden", &out.hidden},         {"gain", &out.gain},
      {"entropy", &out.entropy},       {"surprise", &out.surprise},
      {"activation", &out.activation}, {"keys", &out.keys}};
  for (const auto& [name, tensor] : tensors) {
    const auto entry = index.tensors.find(name);
    if (entry == index.tensors.end()) return corrupt("gain table's tensor", name, "none");
    MEMSLOT_TRY(*tensor, read_f32(file, entry->second));
  }
  MEMSLOT_TRY(check(out));
  MEMSLOT_TRY(check_scored(out));
  return out;
}

Status GainTable::save(const std::string& path) const { return write_file(path, bytes()); }

Result<GainTable> GainTable::load(const std::string& path) { return parse_file<GainTable>(path); }

std::vector<std::uint32_t> draw_generic(const GainTable& table, std::size_t count,
                                        std::uint64_t seed) {
  std::vector<std::uint32_t> of_training;
  for (std::uint32_t i = 0; i < table.memories.size(); ++i) {
    const std::int32_t source = table.memories[i].source;
    if (source < 0 || table.sources[static_cast<std::size_t>(source)].split != Split::kTrain)
      continue;
    of_training.push_back(i);
  }
  // Fisher and Yates, as far as needed.
  const std::size_t n = std::min(count, of_training.size());
  for (std::size_t i = 0; i < n; ++i) {
    std::swap(of_training[i], of_training[i + uniform_below(of_training.size() - i, seed, 5, i)]);
  }
  of_training.resize(n);
  return of_training;
}

}  // namespace memslot
