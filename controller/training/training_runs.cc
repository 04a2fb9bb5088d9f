#include "controller/training/training_runs.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <system_error>

#include "rl/gain_table.h"
#include "shared/base/json_dump.h"
#include "shared/base/log.h"
#include "shared/files/write_file.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kLongestName = 64;
constexpr std::size_t kMostOfLog = 4096;
constexpr std::size_t kMostOfCurve = std::size_t{1} << 20;
constexpr std::size_t kMostOfLooks = std::size_t{1} << 16;    // enough for the last one
constexpr std::size_t kLargestReport = std::size_t{2} << 20;  // of a comparison, or a run.json
constexpr std::size_t kLargestPolicy = std::size_t{256} << 20;
constexpr int kSignal = 128;
constexpr const char* kTableEnding = ".safetensors";
constexpr const char* kPolicyFile = "/policy.safetensors";

// Those of memslot train but for names of files.
constexpr std::string_view kOptions[] = {
    "seed",        "updates",   "warm_start",    "look_every",    "patience",    "baseline",
    "gamma",       "entropy",   "prior",         "entropy_decay", "clip_norm",   "rank",
    "hidden",      "streams",   "rollouts",      "candidates",    "window",      "margin",
    "long_window", "swap_cost", "learning_rate", "averaging",     "hide_source", "hide_memory"};

bool is_name(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= kLongestName &&
         std::isalnum(static_cast<unsigned char>(text[0])) && std::ranges::all_of(text, plain);
}

Status check_name(const std::string& what, const std::string& text) {
  if (is_name(text)) return ok();
  return invalid(
      what, "up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", text);
}

Status check_table(const std::string& name) {
  MEMSLOT_TRY(check_name("table", name));
  if (name.ends_with(kTableEnding)) return ok();
  return invalid("table", "a name that ends in .safetensors", name);
}

Status check_options(const std::map<std::string, std::string>& options) {
  for (const auto& [name, value] : options) {
    if (std::ranges::find(kOptions, name) == std::end(kOptions)) {
      return invalid("training option", "one of memslot train's, such as seed or learning_rate",
                     name);
    }
    // A word of the command line of its own: never taken for another option.
    if (value.empty() || value.size() > 32 || !std::isalnum(static_cast<unsigned char>(value[0]))) {
      return invalid("training option " + name, "a number, or a word", value);
    }
  }
  return ok();
}

// The file's bytes from `from` on, at most the last `most` of them; "" where there is none.
std::string end_of(const std::string& path, std::size_t most, std::size_t from = 0) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const auto size = static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0));
  const std::size_t begin = std::max(from, size - std::min(size, most));
  if (begin >= size) return "";
  std::string out(size - begin, '\0');
  file.seekg(static_cast<std::streamoff>(begin));
  file.read(out.data(), static_cast<std::streamsize>(out.size()));
  out.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return out;
}

// All of a file; "" where there is none, or one too large.
std::string text_of(const std::string& path) {
  const std::string out = end_of(path, kLargestReport + 1);
  return out.size() > kLargestReport ? "" : out;
}

std::size_t size_of(const std::string& path) {
  std::error_code failure;
  const auto size = fs::file_size(path, failure);
  return failure ? 0 : static_cast<std::size_t>(size);
}

bool exists(const std::string& path) {
  std::error_code failure;
  return fs::exists(path, failure);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) out.push_back(std::move(line));
  }
  return out;
}

// Why a program ended so: its own last words since `before`, the size of the log then.
std::string reason(int ended, const std::string& log, std::size_t before) {
  if (ended == ChildProcess::kNotStarted) return "the program cannot be run";
  if (ended > kSignal) return "ended by signal " + std::to_string(ended - kSignal);
  std::string last = "exit code " + std::to_string(ended);
  for (const std::string& line : lines_of(end_of(log, kMostOfLog, before))) {
    if (!line.starts_with("Run with --help")) last = line;
  }
  return last;
}

std::vector<std::string> names_in(const std::string& folder, std::string_view ending) {
  std::vector<std::string> out;
  std::error_code failure;
  for (fs::directory_iterator at(folder, failure), end; !failure && at != end;
       at.increment(failure)) {
    std::string name = at->path().filename().string();
    if (is_name(name) && name.ends_with(ending)) out.push_back(std::move(name));
  }
  std::ranges::sort(out);
  return out;
}

// The number of the last look.
std::uint64_t last_update(const std::string& curve) {
  std::uint64_t out = 0;
  for (const std::string& line : lines_of(end_of(curve, kMostOfLooks))) {
    const Json look = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!look.is_object() || !look.contains("update")) continue;
    if (look["update"].is_number_unsigned()) out = look["update"].get<std::uint64_t>();
  }
  return out;
}

// "" and 0 where a field is absent, or of another type.
std::string text_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}
std::int64_t number_in(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

// What a run.json says; nullopt: it is none.
std::optional<TrainingRun> parsed(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  TrainingRun out;
  out.table = text_in(json, "table");
  out.state = text_in(json, "state");
  out.message = text_in(json, "message");
  out.started_unix_ms = number_in(json, "started_unix_ms");
  const auto options = json.find("options");
  if (options == json.end() || !options->is_object() || out.state.empty()) return std::nullopt;
  for (const auto& [option, value] : options->items()) {
    if (value.is_string()) out.options[option] = value.get<std::string>();
  }
  return out;
}

Error no_such_run(const std::string& name) {
  return {ErrorCode::kNotFound,
          "training " + name + ": expected one of this controller, found none"};
}

}  // namespace

TrainingRuns::TrainingRuns(std::string folder, std::string program, const Clock& clock)
    : folder_(std::move(folder)), program_(std::move(program)), clock_(clock) {}

TrainingRuns::~TrainingRuns() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    if (active_ != nullptr) active_->child.terminate();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

Status TrainingRuns::usable() const {
  if (!folder_.empty()) return ok();
  return Error{ErrorCode::kUnavailable,
               "training: expected a folder (--training), found a controller without one"};
}

Result<std::vector<std::string>> TrainingRuns::tables() const {
  MEMSLOT_TRY(usable());
  return names_in(folder_ + "/tables", kTableEnding);
}

Status TrainingRuns::add_table(const std::string& name, std::string_view bytes) {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_table(name));
  if (const auto table = GainTable::parse(bytes); !table) {
    return table.error().with_context("table " + name);
  }
  std::error_code failure;
  fs::create_directories(folder_ + "/tables", failure);
  return write_file(folder_ + "/tables/" + name, bytes);
}

Status TrainingRuns::write(const TrainingRun& run) const {
  const Json json = {{"table", run.table},
                     {"options", run.options},
                     {"state", run.state},
                     {"message", run.message},
                     {"started_unix_ms", run.started_unix_ms}};
  return write_file(run_folder(run.name) + "/run.json", dump(json, 1) + "\n");
}

std::string TrainingRuns::stopped_message(const std::string& name) const {
  return exists(run_folder(name) + kPolicyFile + ".state") ? "started again it goes on"
                                                           : "started again it begins anew";
}

Result<TrainingRun> TrainingRuns::read(const std::string& name) const {
  std::optional<TrainingRun> out;
  {
    const std::lock_guard lock(mutex_);
    if (active_ != nullptr && active_->run.name == name) out = active_->run;
  }
  if (!out) {
    if (!exists(run_folder(name))) return no_such_run(name);
    out = parsed(text_of(run_folder(name) + "/run.json"));
    if (!out) {
      out = TrainingRun{};
      out->state = "failed";
      out->message = "run.json: expected what this controller wrote, found something else";
    }
    if (out->state == "running") {
      out->state = "stopped";
      out->message = "the controller ended meanwhile; " + stopped_message(name);
    }
    out->name = name;
  }
  out->update = last_update(run_folder(name) + kPolicyFile + ".curve.jsonl");
  out->policy = exists(run_folder(name) + kPolicyFile);
  return std::move(*out);
}

Result<std::vector<TrainingRun>> TrainingRuns::runs() const {
  MEMSLOT_TRY(usable());
  std::vector<TrainingRun> out;
  for (const std::string& name : names_in(folder_ + "/runs", "")) {
    auto run = read(name);
    if (run) out.push_back(std::move(run).value());  // else it was removed just now
  }
  std::ranges::stable_sort(out, {}, &TrainingRun::started_unix_ms);
  return out;
}

std::string TrainingRuns::free_name(const std::string& table) const {
  const std::string stem = table.substr(0, std::min(table.find('.'), kLongestName - 8));
  for (int number = 1;; ++number) {
    std::string name = stem + "-" + std::to_string(number);
    if (!exists(run_folder(name))) return name;
  }
}

// What was saved goes on only as what it was.
Status TrainingRuns::startable(const TrainingRun& run, bool resume) const {
  if (!exists(folder_ + "/tables/" + run.table)) {
    return Error{ErrorCode::kNotFound,
                 "table " + run.table + ": expected a file in " + folder_ + "/tables, found none"};
  }
  if (access(program_.c_str(), X_OK) != 0) {
    return Error{ErrorCode::kNotSupported,
                 "training: expected the program " + program_ +
                     ", found none: it belongs beside memslot-controller"};
  }
  if (!resume) return ok();
  MEMSLOT_TRY(const TrainingRun before, read(run.name));
  const bool same = before.table == run.table && before.options == run.options;
  if (same && before.state != "done") return ok();
  return Error{ErrorCode::kConflict,
               "training " + run.name +
                   ": expected a new name, or that of a stopped training with the same table and "
                   "options, found one that is " +
                   (same ? before.state : "another")};
}

Result<std::string> TrainingRuns::start(const std::string& table, const std::string& name,
                                        std::map<std::string, std::string> options) {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_table(table));
  MEMSLOT_TRY(check_options(options));
  if (!name.empty()) {
    MEMSLOT_TRY(check_name("training", name));
  }
  auto active = std::make_unique<Active>();
  active->run = {.name = name.empty() ? free_name(table) : name,
                 .table = table,
                 .options = std::move(options),
                 .state = "running",
                 .message = "",
                 .started_unix_ms = clock_.unix_ms()};
  const TrainingRun& run = active->run;
  const bool resume = exists(run_folder(run.name) + kPolicyFile + ".state");
  MEMSLOT_TRY(startable(run, resume));
  const std::lock_guard lock(mutex_);
  if (active_ != nullptr) {
    return Error{ErrorCode::kConflict,
                 "training: expected none under way, found " + active_->run.name};
  }
  std::error_code failure;
  fs::create_directories(run_folder(run.name), failure);
  if (failure) return Error{ErrorCode::kIo, run_folder(run.name) + ": " + failure.message()};
  MEMSLOT_TRY(write(run));
  if (thread_.joinable()) thread_.join();  // of one that has ended
  active_ = std::move(active);
  try {
    thread_ = std::thread([this, resume, &begun = *active_] { train(begun, resume); });
  } catch (const std::system_error& error) {
    active_.reset();
    return Error{ErrorCode::kOverloaded, std::string("training: no thread: ") + error.what()};
  }
  return active_->run.name;
}

// The thread of one training, from its process to its comparison.
void TrainingRuns::train(Active& active, bool resume) {
  const TrainingRun ended = trained(active, resume);
  log::info("training {}: {} {}", ended.name, ended.state, ended.message);
  if (const Status kept = write(ended); !kept) log::warn("training: {}", kept.error().message);
  const std::lock_guard lock(mutex_);
  active_.reset();
}

TrainingRun TrainingRuns::trained(Active& active, bool resume) {
  TrainingRun run = active.run;
  const std::string folder = run_folder(run.name), log = folder + "/log";
  std::vector<std::string> words = {program_, "train", folder_ + "/tables/" + run.table, "--out",
                                    folder + kPolicyFile};
  for (const auto& [name, value] : run.options) {
    std::string option = "--" + name;
    std::ranges::replace(option, '_', '-');
    words.insert(words.end(), {option, value});
  }
  if (resume) words.emplace_back("--resume");
  log::info("training {} begins, from {}", run.name, run.table);
  const std::size_t before = size_of(log);
  const auto ended = active.child.run(words, log);
  if (ended && ended.value() == 0) {
    run.state = "done";
    run.message = compared(active);
  } else if (active.child.terminated() ||
             (ended && ended.value() == exit_code(ErrorCode::kCancelled))) {
    run.state = "stopped";
    run.message = stopped_message(run.name);
  } else {
    run.state = "failed";
    run.message = ended ? reason(ended.value(), log, before) : ended.error().message;
  }
  return run;
}

// "", or why it was not compared.
std::string TrainingRuns::compared(Active& active) {
  {
    const std::lock_guard lock(mutex_);
    active.run.message = "comparing with the other selectors";
  }
  const std::string folder = run_folder(active.run.name), log = folder + "/log";
  const std::size_t before = size_of(log);
  const auto ended = active.child.run({program_, "eval", folder_ + "/tables/" + active.run.table,
                                       folder + kPolicyFile, "--out", folder + "/report"},
                                      log);
  if (ended && ended.value() == 0) return "";
  return "not compared: " + (ended ? reason(ended.value(), log, before) : ended.error().message);
}

Status TrainingRuns::stop(const std::string& name) {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_name("training", name));
  MEMSLOT_TRY(const TrainingRun run, read(name));
  const std::lock_guard lock(mutex_);
  if (active_ == nullptr || active_->run.name != name) {
    return Error{ErrorCode::kConflict,
                 "training " + name + ": expected one under way, found one that is " + run.state};
  }
  active_->child.terminate();
  return ok();
}

Status TrainingRuns::remove(const std::string& name) {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_name("training", name));
  MEMSLOT_TRY(const TrainingRun run, read(name));  // also one that cannot be read
  if (run.state == "running") {
    return Error{ErrorCode::kConflict, "training " + name +
                                           ": expected one that ended, found one "
                                           "under way"};
  }
  std::error_code failure;
  fs::remove_all(run_folder(name), failure);
  if (failure) return Error{ErrorCode::kIo, run_folder(name) + ": " + failure.message()};
  return ok();
}

Result<std::string> TrainingRuns::policy(const std::string& name) const {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_name("training", name));
  MEMSLOT_TRY(const TrainingRun run, read(name));
  if (!run.policy) {
    return Error{ErrorCode::kNotFound, "training " + name + ": expected a policy, found none yet"};
  }
  std::string bytes = end_of(run_folder(name) + kPolicyFile, kLargestPolicy);
  if (bytes.empty()) return Error{ErrorCode::kIo, run_folder(name) + kPolicyFile + ": cannot read"};
  return bytes;
}

Result<std::vector<std::string>> TrainingRuns::curve(const std::string& name) const {
  MEMSLOT_TRY(usable());
  MEMSLOT_TRY(check_name("training", name));
  const std::string path = run_folder(name) + kPolicyFile + ".curve.jsonl";
  std::vector<std::string> lines = lines_of(end_of(path, kMostOfCurve));
  if (size_of(path) <= kMostOfCurve || lines.empty()) return lines;
  // What it began with, and then the newest looks.
  std::ifstream file(path, std::ios::binary);
  std::getline(file, lines.front());
  return lines;
}

Result<std::vector<std::pair<std::string, std::string>>> TrainingRuns::comparisons() const {
  MEMSLOT_TRY(usable());
  std::vector<std::pair<std::string, std::string>> out;
  constexpr std::string_view kEnding = ".json";
  for (const std::string& name : names_in(folder_ + "/comparisons", kEnding)) {
    out.emplace_back(name.substr(0, name.size() - kEnding.size()),
                     text_of(folder_ + "/comparisons/" + name));
  }
  MEMSLOT_TRY(const auto all, runs());
  for (const TrainingRun& run : all) {
    std::string report = text_of(run_folder(run.name) + "/report/report.json");
    if (!report.empty()) out.emplace_back(run.name, std::move(report));
  }
  return out;
}

}  // namespace memslot
