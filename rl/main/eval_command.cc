#include <CLI/CLI.hpp>
#include <filesystem>

#include "rl/main/commands.h"
#include "rl/main/console.h"
#include "rl/report/comparison_report.h"
#include "rl/report/training_log.h"
#include "shared/files/write_file.h"

namespace memslot::rl_program {
namespace {

using nlohmann::json;

constexpr const char* kFooter =
    "Several checkpoints are seeds of one training: figures of `policy` are their mean.\n"
    "\n"
    "  net gain    nats a token over base, less what any memory would give\n"
    "  regret      the oracle's net gain minus the selector's\n"
    "  accuracy    share of steps with the oracle's action\n"
    "  abstention  share of steps of uncovered text at which base is chosen\n"
    "  lead        the policy's net gain minus the selector's, with the 95 % interval of a paired\n"
    "              bootstrap over streams clustered by source\n"
    "\n"
    "The activated mode, where the cache of earlier tokens stays as other memories made it, has to "
    "be\n"
    "measured by a generator: --schedules FILE writes what each selector chooses, one JSON object "
    "a\n"
    "line; --activated FILE reads the same lines with `gain`, the session's log-probability minus "
    "a\n"
    "base run's, nats a token, one number a decision.\n"
    "\n"
    "Example:\n"
    "  memslot eval gains.safetensors policy?.safetensors --out report";

constexpr double kMostSeconds = 300;  // of a training, on two cores

struct Arguments {
  std::string table, split = "test", out, schedules, activated;
  std::vector<std::string> checkpoints;
};

Split split_of(const std::string& name) {
  if (name == "train") return Split::kTrain;
  return name == "validation" ? Split::kValidation : Split::kTest;
}

void show(const Console& out, const Section& s, const std::string& title,
          const std::map<std::string, double>& decision_us) {
  out.line("");
  if (!s.absent.empty()) {
    out.line(title + ": not measured: " + s.absent);
    return;
  }
  out.line(title + format(" (%zu streams; nearest: window %u, threshold %.2f)",
                          s.selectors[0].score.streams.size(), s.nearest.window_tokens,
                          static_cast<double>(s.nearest.threshold)));
  out.line(
      "  selector       net gain  95 % interval      regret  accuracy  abstention  swaps/100  "
      "policy's lead             decision");
  for (const Compared& c : s.selectors) {
    const auto time = decision_us.find(c.name);
    const std::string lead = c.name == "policy" ? ""
                                                : format("%+.3f [%+.3f, %+.3f]", c.lead,
                                                         c.lead_ci95.low, c.lead_ci95.high);
    out.line(format("  %-13s  %8.3f  [%6.3f, %6.3f]  %8.3f  %6.1f %%  %8.1f %%  %9.2f  %-24s  %s",
                    c.name.c_str(), c.score.mean_gain, c.score.ci95.low, c.score.ci95.high,
                    c.score.regret, 100 * c.score.accuracy, 100 * c.score.abstention,
                    c.score.swaps_per_100, lead.c_str(),
                    time == decision_us.end() ? "" : format("%.1f us", time->second).c_str()));
  }
}

void show_targets(const Console& out, const Comparison& c) {
  out.line("");
  for (const Target& t : c.targets) {
    out.line(format("%-48s %8.4f  %s %-6.4g  %s", t.name.c_str(), t.figure,
                    t.at_least ? ">=" : "<=", t.bound, t.met ? "met" : "MISSED"));
  }
  const auto good = std::count(c.seeds_meet_targets.begin(), c.seeds_meet_targets.end(), true);
  out.line(
      format("%td of %zu seeds meet all targets by themselves", good, c.seeds_meet_targets.size()));
  out.line(format("on covered steps the policy leads nearest key by %+.3f [%+.3f, %+.3f]%s",
                  c.covered_lead, c.covered_ci95.low, c.covered_ci95.high,
                  c.tie ? ": a tie (within 2 %), abstention carries the difference" : ""));
}

// Where every training left its curve: the longest one is held against the bound.
void add_training_time(const json& checkpoints, Comparison& c) {
  double longest = 0;
  for (const json& checkpoint : checkpoints) {
    if (checkpoint["training"].is_null()) return;
    longest = std::max(longest, checkpoint["training"]["seconds"].get<double>());
  }
  c.targets.push_back(
      {"seconds of the longest training", longest, kMostSeconds, false, longest <= kMostSeconds});
}

Status write_schedules(const Arguments& a, const LoadedTable& loaded,
                       const std::vector<Checkpoint>& checkpoints) {
  MEMSLOT_TRY(const auto found, schedules(loaded.table, checkpoints, split_of(a.split)));
  const StreamEnv env(loaded.table, {}, checkpoints[0].whitening);
  return write_file(a.schedules, text_of(loaded.table, env, found));
}

Status write_report(const std::string& folder, const json& report, const Comparison& c) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (!std::filesystem::is_directory(folder, failure)) {
    return Error{ErrorCode::kIo, "--out: cannot make the folder " + folder};
  }
  MEMSLOT_TRY(write_file(folder + "/report.json", report.dump(1) + "\n"));
  return write_file(folder + "/report.html", page_of(c, report));
}

Result<json> evaluate_all(const Arguments& a, const Console& console) {
  MEMSLOT_TRY(const LoadedTable loaded, load_table(a.table));
  std::vector<Checkpoint> checkpoints;
  json about = {{"table", loaded.digest}, {"split", a.split}, {"checkpoints", json::array()}};
  for (const std::string& path : a.checkpoints) {
    MEMSLOT_TRY(auto checkpoint, Checkpoint::load(path));
    about["checkpoints"].push_back({{"file", path},
                                    {"digest", checkpoint.digest()},
                                    {"seed", checkpoint.seed},
                                    {"config", checkpoint.config_digest},
                                    {"training", end_of_training(path + ".curve.jsonl")}});
    checkpoints.push_back(std::move(checkpoint));
  }
  CompareOptions options{.split = split_of(a.split)};
  MeasuredGains measured;
  if (!a.activated.empty()) {
    MEMSLOT_TRY(measured, read_measured(loaded.table, a.activated));
    options.activated = &measured;
  }
  MEMSLOT_TRY(Comparison compared, compare(loaded.table, checkpoints, options));
  add_training_time(about["checkpoints"], compared);
  if (!a.schedules.empty()) {
    MEMSLOT_TRY(write_schedules(a, loaded, checkpoints));
  }
  json report = json_of(compared);
  report.update(about);
  show(console, compared.recompute, "streams, recompute", compared.decision_us);
  show(console, compared.activated, "streams, activated", {});
  show(console, compared.async, "streams, async (one step late)", {});
  show(console, compared.prompt, "prompt only", {});
  show(console, compared.continuation, "unseen continuations", {});
  show(console, compared.control, "control text", {});
  show_targets(console, compared);
  if (!a.out.empty()) {
    MEMSLOT_TRY(write_report(a.out, report, compared));
    console.line(a.out + "/report.json  " + a.out + "/report.html");
  }
  return report;
}

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand(
      "eval", "Hold a policy against rules and references on streams that it has not seen");
  command->footer(kFooter);
  auto a = std::make_shared<Arguments>();
  command->add_option("table", a->table, "Gain table (docs/formats/gains.md)")->required();
  command->add_option("checkpoint", a->checkpoints, "Policies of `memslot train`, one a seed")
      ->required();
  command->add_option("--split", a->split, "Which streams")
      ->check(CLI::IsMember({"train", "validation", "test"}))
      ->capture_default_str();
  command->add_option("--out,-o", a->out, "Folder for report.json and report.html");
  command->add_option("--schedules", a->schedules, "Write what the activated mode needs measured");
  command->add_option("--activated", a->activated, "Read it, measured");
  command->callback([a, &context] {
    context.run = [a, &context] {
      const Console console(context.json);
      const auto done = evaluate_all(*a, console);
      if (!done) return console.fail(done.error());
      console.result(done.value());
      return 0;
    };
  });
}

}  // namespace memslot::rl_program
