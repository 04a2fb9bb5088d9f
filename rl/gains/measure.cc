#include "rl/gains/measure.h"

#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

#include "rl/streams.h"
#include "shared/base/digest.h"
#include "shared/base/json_depth.h"
#include "shared/files/mapped_file.h"
#include "shared/files/write_file.h"

namespace memslot::gains_program {
namespace {

using nlohmann::json;

// What the generator is asked, from the dataset's stream of each name.
struct Dataset {
  std::string model;
  std::map<std::string, json> arguments;  // ids, step_tokens
  std::map<std::string, std::size_t> step_counts;

  static Result<Dataset> parse(std::string_view text);
};

struct Line {
  json schedule;  // as it was read
  json arguments;
  std::size_t first = 0, decisions = 0;
  std::string digest;
};

Error bad(const std::string& what, const std::string& expected) {
  return corrupt(what, expected, "something else");
}

// Nothing where it is no JSON object, or one too deep.
json object_of(std::string_view text) {
  if (!json_depth_fits(text)) return {};
  json out = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return out.is_object() ? out : json();
}

template <class T>
bool list_of(const json& object, const char* key, bool (json::*is)() const noexcept,
             std::vector<T>* out) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return false;
  for (const json& value : *found) {
    if (!(value.*is)()) return false;
  }
  *out = found->template get<std::vector<T>>();
  return true;
}

std::string text_in(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

Result<Dataset> Dataset::parse(std::string_view text) {
  const json file = object_of(text);
  const auto step_tokens = file.find("step_tokens");
  const auto streams = file.find("streams");
  if (text_in(file, "format") != "memslot-streams-1" || step_tokens == file.end() ||
      !step_tokens->is_number_unsigned() || streams == file.end() || !streams->is_array()) {
    return bad("dataset", "one of format memslot-streams-1");
  }
  Dataset out;
  out.model = text_in(file, "model");
  for (const json& stream : *streams) {
    const std::string id = text_in(stream, "id");
    std::vector<std::int32_t> ids;
    std::vector<std::uint32_t> tokens;
    if (id.empty() || !list_of(stream, "ids", &json::is_number_integer, &ids) ||
        !list_of(stream, "tokens", &json::is_number_unsigned, &tokens)) {
      return bad("dataset", "streams with id, ids and tokens");
    }
    // A session's steps are full ones; those of a prompt-only case are not.
    const auto cut = step_tokens->get<std::uint32_t>();
    const auto all = std::accumulate(tokens.begin(), tokens.end(), std::size_t{0});
    if (all + 1 != ids.size() || tokens != cut_steps(all, cut)) continue;
    out.step_counts[id] = tokens.size();
    out.arguments[id] = {{"ids", ids}, {"step_tokens", cut}};
  }
  return out;
}

// The swaps of a schedule: where its action is another than the one before.
json swaps_of(const std::vector<std::string>& actions, std::size_t first) {
  json swaps = json::array({{{"step", 0}, {"memory", "base"}}});
  std::string active = "base";
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (actions[i] == active) continue;
    active = actions[i];
    swaps.push_back({{"step", first + i}, {"memory", active}});
  }
  return swaps;
}

Result<Line> line_of(const Dataset& dataset, const std::string& text, std::size_t number,
                     const std::string& ns) {
  const std::string where = "schedules' line " + std::to_string(number);
  Line line;
  line.schedule = object_of(text);
  const auto first = line.schedule.find("first");
  std::vector<std::string> actions;
  const std::string stream = text_in(line.schedule, "stream");
  if (stream.empty() || first == line.schedule.end() || !first->is_number_unsigned() ||
      !list_of(line.schedule, "actions", &json::is_string, &actions)) {
    return bad(where, "stream, first and actions");
  }
  const auto found = dataset.arguments.find(stream);
  if (found == dataset.arguments.end()) {
    return Error{ErrorCode::kNotFound,
                 where + ": expected a stream of the dataset with full steps, found " + stream};
  }
  line.first = first->get<std::size_t>();
  line.decisions = actions.size();
  if (line.first + line.decisions != dataset.step_counts.at(stream)) {
    return bad(where, "an action for each step from the first decision on");
  }
  line.arguments = found->second;
  line.arguments.update({{"memory", "base"},
                         {"kv", "activated"},
                         {"namespaces", {ns}},
                         {"schedule", swaps_of(actions, line.first)}});
  line.digest = sha256(bytes_of(dataset.model + "\n" + line.arguments.dump())).hex();
  return line;
}

// What a run before this one measured, by digest; a line that was cut off is measured again.
std::map<std::string, json> measured_before(const std::string& path) {
  std::map<std::string, json> out;
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    json line = object_of(text);
    const std::string digest = text_in(line, "of");
    std::vector<double> gains;
    if (!digest.empty() && list_of(line, "gain", &json::is_number, &gains))
      out[digest] = std::move(line);
  }
  return out;
}

Result<json> measured(Pair& pair, const Line& line) {
  json arguments = line.arguments;
  arguments["trace"] = false;  // thousands of readings that nobody looks at again
  auto scores = pair.task("score", arguments);
  if (!scores) return scores.error().with_context("stream " + text_in(line.schedule, "stream"));
  std::vector<double> gains;
  if (!list_of(*scores.value(), "gains", &json::is_number, &gains) ||
      gains.size() != line.first + line.decisions) {
    return bad("generator's scores", std::to_string(line.first + line.decisions) + " gains");
  }
  gains.erase(gains.begin(), gains.begin() + static_cast<std::ptrdiff_t>(line.first));
  json out = line.schedule;
  out["gain"] = gains;
  out["of"] = line.digest;
  return out;
}

}  // namespace

Result<std::size_t> measure_schedules(Pair& pair, const MeasureFiles& files,
                                      const OnProgress& tell) {
  MEMSLOT_TRY(const Dataset dataset, parse_file<Dataset>(files.dataset));
  std::ifstream in(files.schedules);
  if (!in) return Error{ErrorCode::kNotFound, files.schedules + ": cannot open"};
  std::vector<Line> todo;
  std::string kept;
  std::size_t number = 0;
  auto before = measured_before(files.out);
  for (std::string text; std::getline(in, text);) {
    MEMSLOT_TRY(Line line, line_of(dataset, text, ++number, pair.ns()));
    const auto done = before.find(line.digest);
    if (done == before.end())
      todo.push_back(std::move(line));
    else
      kept += done->second.dump() + "\n";
  }
  MEMSLOT_TRY(write_file(files.out, kept));
  MEMSLOT_TRY(const std::size_t generators, generators_of(pair));
  std::ofstream out(files.out, std::ios::app);
  std::mutex mutex;
  MEMSLOT_TRY(side_by_side(
      pair, generators, "measuring", todo.size(),
      [&](std::size_t i) -> Result<std::string> {
        MEMSLOT_TRY(const json line, measured(pair, todo[i]));
        const std::lock_guard lock(mutex);
        out << line.dump() + "\n" << std::flush;
        if (out) return text_in(line, "stream");
        return Error{ErrorCode::kIo, files.out + ": cannot write"};
      },
      tell));
  return number;
}

}  // namespace memslot::gains_program
