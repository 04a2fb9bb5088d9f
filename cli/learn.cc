#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/limits.h"
#include "shared/base/json_depth.h"
#include "shared/memory/record.h"

namespace memslot::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct LearnOptions {
  std::vector<std::string> paths;
  std::string source, id, kind, segments, dtype, config;
  int rank = 0, steps = 0, layer = -1;
  std::optional<double> lr, anchor;
  double target_recall = -1;
  bool detach = false;
};

// Files as given; of a folder every *.txt, in name order.
Result<std::vector<std::string>> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const auto& path : paths) {
    std::error_code failure;
    if (!fs::is_directory(path, failure)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path, failure)) {
      if (entry.path().extension() == ".txt") found.push_back(entry.path().string());
    }
    if (found.empty())
      return Error{ErrorCode::kNotFound, "folder " + path + ": expected *.txt files, found none"};
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

// Only what was asked for: the generator's defaults fill the rest.
Result<json> config_of(const LearnOptions& o) {
  json config = json::object();
  if (!o.config.empty()) {
    if (!json_depth_fits(o.config)) return invalid("--config nesting", "at most 64", "deeper");
    config = json::parse(o.config, nullptr, false);
    if (!config.is_object()) return invalid("--config", "a JSON object", o.config);
  }
  if (!o.kind.empty()) config["kind"] = o.kind;
  if (!o.segments.empty()) config["segments"] = o.segments;
  if (!o.dtype.empty()) config["dtype"] = o.dtype;
  if (o.rank > 0) config["rank"] = o.rank;
  if (o.steps > 0) config["max_steps"] = o.steps;
  if (o.layer >= 0) config["layer"] = o.layer;
  if (o.lr) config["lr"] = *o.lr;
  if (o.anchor) config["anchor"] = *o.anchor;
  if (o.target_recall >= 0) config["target_recall"] = o.target_recall;
  return config;
}

void show_progress(const Output& out, const std::string& source, const json& event) {
  out.event(event);
  if (event.value("type", "") != "progress") return;
  if (const auto waits = event.value("waits", ""); !waits.empty()) {
    out.clear_status();
    return out.note(source + ": job " + event.value("job", "") + " waits: " + waits);
  }
  char text[160];
  std::snprintf(text, sizeof text, "%-28.28s %-10s step %3d of %3d  loss %6.3f  recall %5.1f %%",
                source.c_str(), event.value("phase", "").c_str(), event.value("step", 0),
                event.value("steps", 0), event.value("loss", 0.0),
                100 * event.value("recall", 0.0));
  out.status(text);
}

void show_learned(const Output& out, const std::string& source, const json& done) {
  const auto& stats = done.contains("stats") ? done["stats"] : json::object();
  char text[200];
  std::snprintf(
      text, sizeof text, "%-28.28s recall %5s %% (base %4s %%)  NLL %s -> %s  control %s %%  %s s",
      source.c_str(), figure(stats, "recall", "%.1f", 100).c_str(),
      figure(stats, "recall_before", "%.1f", 100).c_str(),
      figure(stats, "nll_before", "%.2f").c_str(), figure(stats, "nll_after", "%.2f").c_str(),
      figure(stats, "locality", "%+.1f", 100).c_str(),
      figure(stats, "wall_seconds", "%.1f").c_str());
  const std::string memory = done.value("memory", "");
  out.clear_status();
  out.line(std::string(text) + "  " + out.coloured(memory, memory));
}

Result<json> learn_one(Client& client, const Output& out, const Context& context,
                       const LearnOptions& options, const std::string& path) {
  MEMSLOT_TRY(const auto text, read_text_file(path));
  MEMSLOT_TRY(const auto config, config_of(options));
  const std::string source = options.source.empty()
                                 ? slug(path == "-" ? "stdin" : fs::path(path).stem().string())
                                 : options.source;
  json arguments = {{"text", text},
                    {"source", source},
                    {"namespace", context.ns},
                    {"config", config},
                    {"watch", !options.detach}};
  if (!options.id.empty()) arguments["id"] = options.id;
  MEMSLOT_TRY(auto done, client.run("learn", arguments,
                                    [&](const json& event) { show_progress(out, source, event); }));
  if (options.detach) {
    const auto waits = done->value("waits", "");
    out.line(source + "  job " + done->value("job", "") +
             (waits.empty() ? "" : "  waits: " + waits));
  } else {
    show_learned(out, source, *done);
  }
  return *done;
}

Status learn(Client& client, const Output& out, const Context& context,
             const LearnOptions& options) {
  MEMSLOT_TRY(const auto files, files_of(options.paths));
  if (files.size() > 1 && (!options.source.empty() || !options.id.empty())) {
    return invalid("--source and --id", "one file", std::to_string(files.size()) + " files");
  }
  json all = json::array();
  for (const auto& path : files) {
    auto learned = learn_one(client, out, context, options, path);
    if (!learned) {
      const Error error = learned.error().with_context(path);
      // What was learned stays learned: it is said beside the error.
      if (!all.empty()) {
        out.result(
            {{"learned", all},
             {"error", {{"code", error_code_name(error.code)}, {"message", error.message}}}});
      }
      return error;
    }
    all.push_back(std::move(learned).value());
  }
  out.result({{"learned", all}});
  return ok();
}

}  // namespace

void add_learn(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("learn", "Update memory: learn files, each as one source");
  auto o = std::make_shared<LearnOptions>();
  command->add_option("paths", o->paths, "Files, folders of *.txt, or - for standard input")
      ->required();
  command->add_option("--source", o->source, "Name of the source (default: the file's name)");
  command->add_option("--id", o->id, "Name of the memory (default: from source and kind)");
  command->add_option("--kind", o->kind, "mlp (default), lora or delta")
      ->check(CLI::IsMember({"mlp", "lora", "delta"}));
  command->add_option("--segments", o->segments, "How the text is cut (default: cumulative)")
      ->check(CLI::IsMember({"overlap", "cumulative"}));
  command->add_option("--rank", o->rank, "Of a lora memory (default: 16)")
      ->check(CLI::Range(1, 256));
  command
      ->add_option("--steps", o->steps,
                   "At most so many optimizer steps (default: mlp 64, lora 96)")
      ->check(CLI::Range(1, 10000));
  command->add_option("--lr", o->lr, "Learning rate, above 0 (default: mlp 0.002, lora 0.01)")
      ->check(number_from(double{std::numeric_limits<float>::min()}, 1));
  command
      ->add_option("--anchor", o->anchor,
                   "Weight that holds the memory to base on other text; 0: none (default: mlp "
                   "0.0008, lora 0.003)")
      ->check(number_from(0, 1e6));
  command
      ->add_option("--target-recall", o->target_recall,
                   "Stop once so much is recalled (default: 0.99)")
      ->check(number_from(0, 1));
  command->add_option("--layer", o->layer, "Which slot layer (default: the first)")
      ->check(CLI::Range(0, 1023));
  command->add_option("--dtype", o->dtype, "Stored as (default: bf16)")
      ->check(CLI::IsMember({"f32", "bf16"}));
  command->add_option("--config", o->config, "More of the learn configuration, as JSON");
  command->add_flag("--detach", o->detach, "Return once the job is accepted");
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& client, const Output& out) { return learn(client, out, context, *o); });
    };
  });
}

}  // namespace memslot::cli
