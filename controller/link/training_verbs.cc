// Admin: the verbs "training.*" and "policy.curves" of docs/formats/tasks.md.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "controller/link/admin.h"
#include "controller/link/arguments.h"
#include "controller/link/bank_verbs.h"
#include "shared/base/json_dump.h"

namespace memslot {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const TrainingRun& run) {
  return {{"run", run.name},
          {"table", run.table},
          {"options", run.options},
          {"state", run.state},
          {"message", run.message},
          {"update", run.update},
          {"started_unix_ms", run.started_unix_ms},
          {"policy", run.policy}};
}

Json json_of(const LearningSample& sample) {
  Json out = {{"unix_ms", sample.unix_ms},
              {"mean_reward", sample.mean_reward},
              {"entropy", sample.entropy},
              {"episodes", sample.episodes},
              {"updates", sample.updates}};
  if (sample.look) out["acting"] = sample.look->value_good;
  if (sample.look) out["other"] = sample.look->value_new;
  return out;
}

// As memslot train takes them: {"seed": 1} is --seed 1.
Result<std::map<std::string, std::string>> options_of(const std::string& object) {
  std::map<std::string, std::string> out;
  const Json options = Json::parse(object);
  for (const auto& [name, value] : options.items()) {
    if (!value.is_number() && !value.is_string()) {
      return invalid("options." + name, "a number or a word", value.dump());
    }
    out[name] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return out;
}

// The JSON objects of `lines`; others, such as the first of a file's end, are left out.
Json rows_of(const std::vector<std::string>& lines) {
  Json out = Json::array();
  for (const std::string& line : lines) {
    Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object()) out.push_back(std::move(row));
  }
  return out;
}

std::size_t bytes_of(const std::vector<std::string>& lines) {
  std::size_t out = 0;
  for (const std::string& line : lines) out += line.size();
  return out;
}

}  // namespace

Result<Admin::Job> Admin::policy_curves(bool trainings) {
  return Job([this, trainings]() -> Result<Answer> {
    Json live = Json::array();
    if (p_.learned.learning != nullptr) {
      for (const LearningSample& sample : p_.learned.learning->history()) {
        live.push_back(json_of(sample));
      }
    }
    Json runs = Json::array();
    if (trainings && !p_.trainings.folder().empty()) {
      MEMSLOT_TRY(const auto known, p_.trainings.runs());
      std::size_t bytes = 0;
      for (auto run = known.rbegin(); run != known.rend(); ++run) {
        MEMSLOT_TRY(const auto curve, p_.trainings.curve(run->name));
        bytes += bytes_of(curve);
        if (bytes > bank_verbs::kPageBytes) break;
        Json rows = rows_of(curve);
        if (rows.empty()) continue;
        runs.insert(runs.begin(), Json{{"run", run->name}, {"rows", std::move(rows)}});
      }
    }
    return text_answer(dump(Json{{"live", std::move(live)}, {"runs", std::move(runs)}}));
  });
}

Result<Admin::Job> Admin::start_training(Arguments& arguments) {
  MEMSLOT_TRY(const std::string table, arguments.text("table"));
  MEMSLOT_TRY(const auto name, arguments.text_if("run"));
  MEMSLOT_TRY(const std::string options, arguments.object_or("options", "{}"));
  MEMSLOT_TRY(arguments.finish());
  MEMSLOT_TRY(auto given, options_of(options));
  return Job([this, table, name, given = std::move(given)]() -> Result<Answer> {
    MEMSLOT_TRY(const std::string run, p_.trainings.start(table, name.value_or(""), given));
    return text_answer(dump(Json{{"run", run}}));
  });
}

Result<Admin::Job> Admin::change_training(const std::string& verb, Arguments& arguments,
                                          SharedBytes file) {
  if (verb == "training.start") return start_training(arguments);
  const std::string what = verb == "training.table" ? "name" : "run";
  MEMSLOT_TRY(const std::string name, arguments.text(what));
  MEMSLOT_TRY(arguments.finish());
  if (verb == "training.load") {
    return Job([this, name, spaces = spaces()]() -> Result<Answer> {
      MEMSLOT_TRY(const std::string bytes, p_.trainings.policy(name));
      return load_checkpoint(bytes, spaces);
    });
  }
  if (verb == "training.table" && file == nullptr) {
    return invalid("training.table", "a gain table as part 0", "none");
  }
  return Job([this, verb, what, name, file = std::move(file)]() -> Result<Answer> {
    if (verb == "training.table") {
      const std::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
      MEMSLOT_TRY(p_.trainings.add_table(name, bytes));
    } else if (verb == "training.stop") {
      MEMSLOT_TRY(p_.trainings.stop(name));
    } else {
      MEMSLOT_TRY(p_.trainings.remove(name));
    }
    return text_answer(dump(Json{{what, name}}));
  });
}

// Tables and reports name memories and sources of every namespace, so all of it is for those who
// see them all.
Result<Admin::Job> Admin::training_verb(const Peer& client, const wire::AdminRequest& admin,
                                        SharedBytes file) {
  const std::string& verb = admin.verb;
  MEMSLOT_TRY(Arguments arguments, Arguments::parse(admin.arguments));
  MEMSLOT_TRY(client.access.check_sees_everything(verb));
  constexpr std::string_view kChanges[] = {"training.start", "training.stop", "training.rm",
                                           "training.load", "training.table"};
  if (std::ranges::find(kChanges, verb) != std::end(kChanges)) {
    return change_training(verb, arguments, std::move(file));
  }
  MEMSLOT_TRY(arguments.finish());
  if (verb == "training.ls") {
    return Job([this]() -> Result<Answer> {
      MEMSLOT_TRY(const auto tables, p_.trainings.tables());
      MEMSLOT_TRY(const auto runs, p_.trainings.runs());
      Json listed = Json::array();
      for (const TrainingRun& run : runs) listed.push_back(json_of(run));
      return text_answer(dump(Json{
          {"folder", p_.trainings.folder()}, {"tables", tables}, {"runs", std::move(listed)}}));
    });
  }
  if (verb != "training.comparisons") {
    return invalid("verb", "one of docs/formats/tasks.md", verb);
  }
  return Job([this]() -> Result<Answer> {
    MEMSLOT_TRY(const auto found, p_.trainings.comparisons());
    Json listed = Json::array();
    std::size_t bytes = 0;
    for (auto one = found.rbegin(); one != found.rend(); ++one) {
      Json rows = rows_of({one->second});
      if (rows.empty() || bytes + one->second.size() > bank_verbs::kPageBytes) continue;
      bytes += one->second.size();
      listed.insert(listed.begin(), Json{{"name", one->first}, {"report", std::move(rows[0])}});
    }
    return text_answer(dump(Json{{"comparisons", std::move(listed)}}));
  });
}

}  // namespace memslot
