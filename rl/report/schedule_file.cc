#include <cmath>
#include <fstream>
#include <unordered_map>

#include "rl/report/comparison_report.h"

namespace memslot {
namespace {

using nlohmann::json;

std::string name_of(const GainTable& table, std::int32_t action) {
  return action == kBaseAction ? "base"
                               : table.memories[static_cast<std::size_t>(action)].ref.text();
}

// Places of a table's streams and memories by name.
struct Names {
  std::unordered_map<std::string, std::size_t> streams;
  std::unordered_map<std::string, std::int32_t> actions{{"base", kBaseAction}};

  explicit Names(const GainTable& table) {
    for (std::size_t s = 0; s < table.streams.size(); ++s) streams[table.streams[s].id] = s;
    for (std::size_t m = 0; m < table.memories.size(); ++m) {
      actions[table.memories[m].ref.text()] = static_cast<std::int32_t>(m);
    }
  }
};

bool is(const json& line, const char* key, json::value_t type) {
  return line.is_object() && line.contains(key) && line[key].type() == type;
}

Error bad_line(std::size_t number) {
  return corrupt("schedules' line " + std::to_string(number),
                 "stream, actions and gains of the table", "something else");
}

}  // namespace

std::string text_of(const GainTable& table, const StreamEnv& env,
                    const std::vector<Schedule>& schedules) {
  std::string out;
  for (const Schedule& s : schedules) {
    json actions = json::array();
    for (const std::int32_t action : s.actions) actions.push_back(name_of(table, action));
    out += json{{"stream", table.streams[s.stream].id},
                {"first", env.first_decision(s.stream)},
                {"actions", actions}}
               .dump() +
           "\n";
  }
  return out;
}

Result<MeasuredGains> read_measured(const GainTable& table, const std::string& path) {
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::kNotFound, "schedules: cannot open " + path};
  const Names names(table);
  MeasuredGains out;
  std::size_t number = 0;
  for (std::string text; std::getline(file, text);) {
    ++number;
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    using Type = json::value_t;
    if (!is(line, "stream", Type::string) || !is(line, "actions", Type::array) ||
        !is(line, "gain", Type::array) || line["gain"].size() != line["actions"].size()) {
      return bad_line(number);
    }
    const auto stream = names.streams.find(line["stream"].get<std::string>());
    if (stream == names.streams.end()) return bad_line(number);
    Schedule schedule{stream->second, {}};
    std::vector<float> gains;
    for (std::size_t i = 0; i < line["actions"].size(); ++i) {
      const json &action = line["actions"][i], &gain = line["gain"][i];
      if (!action.is_string() || !gain.is_number()) return bad_line(number);
      const auto found = names.actions.find(action.get<std::string>());
      if (found == names.actions.end() || !std::isfinite(gain.get<float>())) {
        return bad_line(number);
      }
      schedule.actions.push_back(found->second);
      gains.push_back(gain.get<float>());
    }
    if (schedule.actions.size() > table.streams[schedule.stream].steps.size()) {
      return bad_line(number);
    }
    out[std::move(schedule)] = std::move(gains);
  }
  return out;
}

}  // namespace memslot
