#include "rl/report/training_log.h"

#include <filesystem>
#include <fstream>

#include "rl/report/page.h"
#include "rl/report/plots.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using nlohmann::json;

// A column of the looks against their update.
Series column(const std::vector<json>& lines, const std::string& name, const char* part,
              const char* key) {
  Series out{name, {}};
  for (const json& line : lines) {
    if (line.value("type", "") != "look") continue;
    const json& from = part == nullptr ? line : line.at(part);
    if (from.contains(key) && from.at(key).is_number()) {
      out.points.emplace_back(line.value("update", 0.0), from.at(key).get<double>());
    }
  }
  return out;
}

// Of the optimizer: nothing was learned before the first look.
Series learned(const std::vector<json>& lines, const char* key) {
  Series out = column(lines, key, nullptr, key);
  if (!out.points.empty() && out.points.front().first == 0) out.points.erase(out.points.begin());
  return out;
}

std::string number(const json& from, const char* key) {
  return from.contains(key) && from.at(key).is_number() ? short_number(from.at(key).get<double>())
                                                        : "-";
}

Table looks_table(const std::vector<json>& lines) {
  Table table{{"update", "return", "entropy", "validation gain", "regret", "accuracy", "abstention",
               "swaps/100", "base on control text", "best"},
              {}};
  for (const json& line : lines) {
    if (line.value("type", "") != "look") continue;
    const json& v = line.at("validation");
    table.rows.push_back({number(line, "update"), number(line, "return"), number(line, "entropy"),
                          number(v, "mean_gain"), number(v, "regret"), number(v, "accuracy"),
                          number(v, "abstention"), number(v, "swaps_per_100"),
                          number(line, "control_base"),
                          line.value("best", false) ? "best so far" : ""});
  }
  return table;
}

std::string options_table(const json& start) {
  Table table{{"option", "value"}, {}};
  const json options = start.value("options", json::object());
  for (const auto& [key, value] : options.items()) {
    table.rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  return html(table);
}

bool is(const json& line, const char* key, json::value_t type) {
  const auto found = line.find(key);
  return found != line.end() && found->type() == type;
}

// A line that look() or begin() may have written, of no later than `update`.
bool usable(const json& line, std::uint64_t update) {
  using Type = json::value_t;
  if (!line.is_object() || !is(line, "type", Type::string)) return false;
  if (line["type"] == "start") {
    return is(line, "table", Type::string) && is(line, "seed", Type::number_unsigned) &&
           is(line, "options", Type::object) && is(line, "references", Type::object);
  }
  return line["type"] == "look" && is(line, "update", Type::number_unsigned) &&
         is(line, "validation", Type::object) && is(line, "best", Type::boolean) &&
         line["update"].get<std::uint64_t>() <= update;
}

}  // namespace

json json_of(const Score& s) {
  return {{"mean_gain", s.mean_gain},         {"regret", s.regret},
          {"accuracy", s.accuracy},           {"abstention", s.abstention},
          {"swaps_per_100", s.swaps_per_100}, {"ci95", {s.ci95.low, s.ci95.high}},
          {"covered_gain", s.covered_gain},   {"base_share", s.base_share},
          {"corpus_nll", s.corpus_nll},       {"prose_nll", s.prose_nll}};
}

TrainingLog TrainingLog::begin(json start) {
  TrainingLog out;
  start["type"] = "start";
  out.lines_.push_back(std::move(start));
  return out;
}

Result<TrainingLog> TrainingLog::load(const std::string& path, std::uint64_t update) {
  TrainingLog out;
  if (!std::filesystem::exists(path)) return out;
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kIo, "curve: cannot read " + path};
  for (std::string text; std::getline(file, text);) {
    json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (usable(line, update)) out.lines_.push_back(std::move(line));
  }
  return out;
}

void TrainingLog::look(const TrainPoint& p, double seconds) {
  lines_.push_back({{"type", "look"},
                    {"update", p.update},
                    {"return", p.report.mean_return},
                    {"reward", p.report.mean_reward},
                    {"entropy", p.report.entropy},
                    {"loss", p.report.loss},
                    {"value_loss", p.report.value_loss},
                    {"gradient_norm", p.report.gradient_norm},
                    {"seconds", seconds},
                    {"steps", p.report.steps},
                    {"steps_per_second", p.steps_per_second},
                    {"validation", json_of(p.validation)},
                    {"control_base", p.control_base ? json(*p.control_base) : json()},
                    {"best", p.best}});
}

void TrainingLog::end(const json& end) {
  lines_.push_back(end);
  lines_.back()["type"] = "end";
}

double TrainingLog::seconds() const {
  const auto last = lines_.empty() ? json::object() : lines_.back();
  return is(last, "seconds", json::value_t::number_float) ? last["seconds"].get<double>() : 0.0;
}

std::string TrainingLog::text() const {
  std::string out;
  for (const json& line : lines_) {
    out += dump(line) + "\n";
  }
  return out;
}

std::string TrainingLog::page() const {
  const json start = lines_.empty() ? json::object() : lines_.front();
  const json end = lines_.empty() ? json::object() : lines_.back();
  std::vector<std::pair<std::string, double>> references;
  const json held = start.value("references", json::object());
  for (const auto& [name, value] : held.items()) {
    if (value.is_number()) references.emplace_back(name, value.get<double>());
  }
  const auto validation = [&](const char* key) { return column(lines_, key, "validation", key); };
  std::vector<std::string> plots = {
      svg(LinePlot{"Net gain on validation",
                   "update",
                   "nats a token",
                   {validation("mean_gain")},
                   references}),
      svg(LinePlot{
          "Return of a training episode", "update", "nats", {learned(lines_, "return")}, {}}),
      svg(LinePlot{"Regret on validation", "update", "nats a token", {validation("regret")}, {}}),
      svg(LinePlot{"Entropy of the policy", "update", "nats", {learned(lines_, "entropy")}, {}}),
      svg(LinePlot{"Accuracy and abstention on validation",
                   "update",
                   "share of steps",
                   {validation("accuracy"), validation("abstention"),
                    column(lines_, "base on control text", nullptr, "control_base")},
                   {}}),
      svg(LinePlot{
          "Swaps on validation", "update", "per 100 tokens", {validation("swaps_per_100")}, {}})};
  std::string body = "<p class=\"soft\">Gain table " +
                     escaped(start.value("table", "").substr(0, 12)) + ", seed " +
                     std::to_string(start.value("seed", 0ULL)) + ".";
  if (end.value("type", "") == "end") {
    body += " Ended by " + escaped(end.value("ended", "")) + "; best at update " +
            number(end, "best_update") + " with " + number(end, "best_gain") +
            " nats a token on validation.";
  }
  body += "</p>" + html_plots(plots) + "<h2>Looks</h2>" + html(looks_table(lines_)) +
          "<h2>Options</h2>" + options_table(start);
  return html_page("Training of a policy", body);
}

json end_of_training(const std::string& curve) {
  std::ifstream file(curve);
  std::string last;
  for (std::string line; std::getline(file, line);) last = line;
  json end = json::parse(last, nullptr, /*allow_exceptions=*/false);
  const bool usable = end.is_object() && is(end, "type", json::value_t::string) &&
                      end["type"] == "end" && is(end, "seconds", json::value_t::number_float);
  return usable ? end : json();
}

}  // namespace memslot
