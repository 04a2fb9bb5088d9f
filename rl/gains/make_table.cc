#include "rl/gains/make_table.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "rl/gains/exported_memory.h"
#include "rl/gains/stream_rows.h"
#include "rl/stream_env.h"
#include "shared/base/digest.h"

namespace memslot::gains_program {
namespace {

using nlohmann::json;

constexpr std::size_t kGeneric = 8;

HostTensor zeros(std::size_t rows, std::size_t cols) {
  HostTensor out;
  out.shape = Shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)};
  out.values.assign(rows * cols, 0.0f);
  return out;
}

class Maker {
 public:
  Maker(Pair& pair, const StreamSet& set, const TableOptions& options, const OnProgress& tell)
      : pair_(pair), set_(set), options_(options), tell_(tell) {}
  Result<GainTable> run();

 private:
  // fn(i) for i < count, as many at once as there are generators; the first error ends all.
  Status side_by_side(const char* phase, std::size_t count,
                      const std::function<Result<std::string>(std::size_t)>& fn);
  Result<std::map<std::string, std::string>> in_bank();
  Status learn_all();
  Status fetch_keys();
  void describe();
  Status choose_candidates();
  Result<StreamRows> rows_of(std::size_t stream, const std::vector<std::uint32_t>& candidates);
  bool fits(const StreamRows& rows) const {
    return static_cast<std::int64_t>(rows.dim) == table_.hidden.shape[1];
  }
  Status score_all();
  void fill(std::size_t stream, const StreamRows& rows);

  Pair& pair_;
  const StreamSet& set_;
  const TableOptions& options_;
  const OnProgress& tell_;
  std::size_t generators_ = 1;
  std::vector<std::string> refs_;  // of the memories, with versions
  GainTable table_;
  std::mutex mutex_;  // table_ while threads run
};

Status Maker::side_by_side(const char* phase, std::size_t count,
                           const std::function<Result<std::string>(std::size_t)>& fn) {
  return gains_program::side_by_side(pair_, generators_, phase, count, fn, tell_);
}

// Names with versions of the memories there are of this model and kind, by id.
Result<std::map<std::string, std::string>> Maker::in_bank() {
  std::map<std::string, std::string> found;
  json arguments = {{"namespace", pair_.ns()}, {"limit", 500}};
  do {
    MEMSLOT_TRY(const auto page, pair_.ask("bank.ls", arguments));
    for (const json& v : page.result->value("memories", json::array())) {
      const json signature = v.value("signature", json::object());
      if (signature.value("model", "") != set_.options.model ||
          signature.value("kind", "") != options_.kind) {
        continue;
      }
      found[v.value("id", "")] =
          MemoryRef{pair_.ns(), v.value("id", ""), v.value("version", std::uint64_t{0})}.text();
    }
    arguments["after"] = page.result->value("next", "");
  } while (arguments["after"] != "");
  return found;
}

Status Maker::learn_all() {
  MEMSLOT_TRY(const auto there, in_bank());
  refs_.resize(set_.memories.size());
  const json config = json::parse(set_.options.learn_config);
  return side_by_side("learning", refs_.size(), [&](std::size_t i) -> Result<std::string> {
    const PlannedMemory& m = set_.memories[i];
    const auto found = there.find(m.id);
    if (found != there.end()) {
      refs_[i] = found->second;
      return m.id;
    }
    const auto source = static_cast<std::size_t>(m.source);
    const auto learned = pair_.task("learn", {{"text", m.text},
                                              {"source", set_.sources[source].name},
                                              {"namespace", pair_.ns()},
                                              {"id", m.id},
                                              {"config", config},
                                              {"watch", true}});
    if (!learned) return learned.error().with_context("memory " + m.id);
    refs_[i] = learned.value()->value("memory", "");
    if (refs_[i].empty()) return memslot::mismatch("learn job of " + m.id, "a memory", "none");
    return m.id;
  });
}

Status Maker::fetch_keys() {
  std::vector<float>& values = table_.keys.values;
  std::uint32_t dim = 0;
  for (std::size_t i = 0; i < refs_.size(); ++i) {
    MEMSLOT_TRY(const auto file, pair_.ask("bank.export", {{"memory", refs_[i]}}));
    if (file.part == nullptr) return corrupt("export of " + refs_[i], "a file", "none");
    auto read = read_export(*file.part);
    if (!read) return read.error().with_context(refs_[i]);
    const ExportedMemory& memory = read.value();
    TableMemory out;
    MEMSLOT_TRY(out.ref, MemoryRef::parse(refs_[i]));
    out.kind = memory.version.signature.kind;
    out.source = set_.memories[i].source;
    out.keys = memory.keys.rows();
    if (out.keys > 0 && dim != 0 && memory.keys.dim != dim) {
      return memslot::mismatch("keys of " + refs_[i], std::to_string(dim) + " dimensions",
                               memory.keys.dim);
    }
    if (out.keys > 0) dim = memory.keys.dim;
    out.first_key = dim == 0 ? 0 : static_cast<std::uint32_t>(values.size() / dim);
    out.wise_min_activation = static_cast<float>(memory.version.stats.wise_min_activation);
    values.insert(values.end(), memory.keys.values.begin(), memory.keys.values.end());
    table_.layer = memory.version.signature.layer;
    table_.memories.push_back(std::move(out));
  }
  table_.keys.shape =
      Shape{dim == 0 ? 0 : static_cast<std::int64_t>(values.size() / dim), std::int64_t{dim}};
  return ok();
}

void Maker::describe() {
  table_.model = set_.options.model;
  table_.step_tokens = set_.options.step_tokens;
  table_.seed = set_.options.seed;
  table_.sources = set_.sources;
  table_.generic = draw_generic(table_, kGeneric, set_.options.seed);
  std::size_t rows = 0;
  for (const PlannedStream& s : set_.streams) {
    table_.streams.push_back(s.table);
    rows += s.table.steps.size();
  }
  const std::size_t memories = table_.memories.size();
  const auto dim = static_cast<std::size_t>(table_.keys.shape[1]);
  table_.hidden = zeros(rows, dim);
  table_.gain = table_.activation = zeros(rows, memories);
  table_.entropy = table_.surprise = zeros(rows, memories + 1);
}

// Base's pass gives the summaries that a controller would compare with the keys.
Status Maker::choose_candidates() {
  const std::size_t all = table_.memories.size();
  if (options_.candidates == 0 || options_.candidates >= all) return ok();
  const auto rank = [&](std::size_t i) -> Result<std::string> {
    MEMSLOT_TRY(const StreamRows rows, rows_of(i, {}));
    const std::lock_guard lock(mutex_);
    fill(i, rows);
    return table_.streams[i].id;
  };
  MEMSLOT_TRY(side_by_side("ranking", table_.streams.size(), rank));
  const StreamEnv env(table_, {}, training_whitening(table_));
  std::vector<std::vector<std::uint32_t>> chosen;
  for (std::size_t i = 0; i < table_.streams.size(); ++i) {
    const TableStream& s = table_.streams[i];
    std::set<std::int32_t> sources;
    for (const TableStep& step : s.steps) sources.insert(step.source);
    std::vector<std::uint32_t> must = table_.generic;
    for (std::uint32_t m = 0; m < all; ++m) {
      if (sources.contains(table_.memories[m].source)) must.push_back(m);
    }
    chosen.push_back(nearest_candidates(
        all, s.steps.size(), options_.candidates, std::move(must),
        [&](std::size_t step, std::size_t m) { return env.best_key(i, step, m); }));
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) table_.streams[i].scored = std::move(chosen[i]);
  return ok();
}

Result<StreamRows> Maker::rows_of(std::size_t i, const std::vector<std::uint32_t>& candidates) {
  const PlannedStream& s = set_.streams[i];
  std::vector<std::string> memories;
  std::string identity = set_.options.model + "/" + std::to_string(options_.slot);
  for (const std::uint32_t m : candidates) memories.push_back(refs_[m]);
  for (const std::string& ref : memories) identity += "\n" + ref;
  std::vector<std::uint32_t> steps;
  for (const TableStep& step : s.table.steps) steps.push_back(step.tokens);
  const json arguments = {{"ids", s.ids},
                          {"steps", steps},
                          {"memories", memories},
                          {"namespaces", {pair_.ns()}},
                          {"slot", options_.slot}};
  const std::string digest = sha256(bytes_of(identity + "\n" + arguments.dump())).hex();
  const std::string path =
      options_.folder + "/" + s.table.id + (candidates.empty() ? ".base" : "") + ".rows";
  if (auto kept = StreamRows::load(path, digest); kept && fits(kept.value())) return kept;
  RowCollector rows(steps.size(), memories.size() + 1);
  auto last = pair_.task("gains", arguments, [&](const json& event) { rows.take(event); });
  if (!last) return last.error().with_context("stream " + s.table.id);
  MEMSLOT_TRY(StreamRows out, rows.finish(*last.value()));
  if (!fits(out)) {
    return memslot::mismatch(
        "summaries of stream " + s.table.id,
        std::to_string(table_.hidden.shape[1]) + " dimensions, as the keys have", out.dim);
  }
  MEMSLOT_TRY(out.save(path, digest));
  return out;
}

Status Maker::score_all() {
  return side_by_side("scoring", table_.streams.size(), [&](std::size_t i) -> Result<std::string> {
    std::vector<std::uint32_t> candidates = table_.streams[i].scored;
    if (candidates.empty()) {
      candidates.resize(table_.memories.size());
      std::iota(candidates.begin(), candidates.end(), 0u);
    }
    MEMSLOT_TRY(const StreamRows rows, rows_of(i, candidates));
    const std::lock_guard lock(mutex_);
    fill(i, rows);
    return table_.streams[i].id;
  });
}

// `rows` are of base and the stream's candidates; or, to rank, of base alone.
void Maker::fill(std::size_t i, const StreamRows& rows) {
  const TableStream& s = table_.streams[i];
  const std::size_t memories = table_.memories.size();
  for (std::size_t t = 0; t < rows.steps; ++t) {
    const std::size_t row = s.first + t;
    std::copy_n(rows.hidden.begin() + static_cast<std::ptrdiff_t>(t * rows.dim), rows.dim,
                table_.hidden.values.begin() + static_cast<std::ptrdiff_t>(row * rows.dim));
    const float base = rows.surprise[t];
    for (std::size_t c = 0; c < rows.candidates; ++c) {
      const std::size_t at = c * rows.steps + t;
      const std::size_t m = c == 0 || s.scored.empty() ? c - 1 : s.scored[c - 1];
      const std::size_t column = c == 0 ? 0 : m + 1;
      table_.entropy.values[row * (memories + 1) + column] = rows.entropy[at];
      table_.surprise.values[row * (memories + 1) + column] = rows.surprise[at];
      if (c == 0) continue;
      table_.gain.values[row * memories + m] = base - rows.surprise[at];
      table_.activation.values[row * memories + m] = rows.activation[at];
    }
  }
}

Result<GainTable> Maker::run() {
  MEMSLOT_TRY(generators_, generators_of(pair_));
  MEMSLOT_TRY(learn_all());
  MEMSLOT_TRY(fetch_keys());
  describe();
  MEMSLOT_TRY(choose_candidates());
  MEMSLOT_TRY(score_all());
  return std::move(table_);
}

}  // namespace

std::vector<std::uint32_t> nearest_candidates(
    std::size_t memories, std::size_t steps, std::size_t count, std::vector<std::uint32_t> must,
    const std::function<float(std::size_t step, std::size_t memory)>& similar) {
  std::set<std::uint32_t> chosen(must.begin(), must.end());
  std::vector<std::vector<std::uint32_t>> ranked;
  for (std::size_t t = 0; t < steps; ++t) {
    std::vector<std::uint32_t> order(memories);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return similar(t, a) > similar(t, b);
    });
    ranked.push_back(std::move(order));
  }
  for (std::size_t rank = 0; rank < memories; ++rank) {
    for (std::size_t t = 0; t < steps && chosen.size() < std::min(count, memories); ++t)
      chosen.insert(ranked[t][rank]);
  }
  return {chosen.begin(), chosen.end()};
}

Result<GainTable> make_table(Pair& pair, const StreamSet& set, const TableOptions& options,
                             const OnProgress& tell) {
  return Maker(pair, set, options, tell).run();
}

}  // namespace memslot::gains_program
