#include "generator/main/settings.h"

#include <charconv>
#include <filesystem>

namespace memslot {
namespace {

constexpr const char* kMore =
    "It keeps nothing but the model in memory; what it learns goes to the controller's bank. "
    "Without a\n"
    "controller it waits for one. Its ready line, on standard output, says what it loaded; the log "
    "goes to\n"
    "standard error. SIGTERM and SIGINT let the step under way end and what waits be sent. Several "
    "may share\n"
    "one controller. Exit codes: docs/operations.md.\n"
    "\n"
    "Examples:\n"
    "  memslot-generator --model SmolLM2-135M-Instruct.Q4_1.gguf\n"
    "  memslot-generator --model gpt2/ --slot-layers 8 --weights f32 --threads 2\n"
    "  memslot-generator --model M.gguf --endpoint tcp://bank.example:7400 --keys own.key "
    "--server-key bank.pub";

// `named` itself, "" for none; for auto the samples of the source tree that this was built from, if
// they are still there.
std::string text_path(const std::string& named, const char* path) {
  if (named == "none") return "";
  if (named != "auto") return named;
  const std::string full = std::string(MEMSLOT_SAMPLES) + "/" + path;
  std::error_code ignored;
  return std::filesystem::exists(full, ignored) ? full : "";
}

Result<int> layer_number(const std::string& text) {
  int layer = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (failed != std::errc() || end != text.data() + text.size() || layer < 0) {
    return invalid("slot_layers", "layer numbers from 0", text);
  }
  return layer;
}

}  // namespace

ConfigTable settings_table(GeneratorSettings& s) {
  ConfigTable table("memslot-generator", "MEMSLOT_GENERATOR",
                    "Runs a GPT whose MLP is swapped for memories, step by step.", kMore);
  table.add(
      {.name = "model", .target = &s.model, .help = "model file (*.gguf) or folder (safetensors)"});
  table.add({.name = "weights",
             .target = &s.weights,
             .help = "type of the weights in memory; bf16 becomes f32 where the processor lacks it",
             .choices = {"bf16", "f32"}});
  table.add(
      {.name = "slot_layers",
       .target = &s.slot_layers,
       .help = "layers whose MLP can be swapped, ascending; none: three quarters up (22 of 30)"});
  table.add({.name = "threads",
             .target = &s.threads,
             .help = "compute threads; 0: one per core",
             .min = 0,
             .max = 1024});
  table.add({.name = "endpoint",
             .target = &s.endpoint,
             .help = "the controller: tcp://... or ipc://..."});
  table.add(
      {.name = "keys",
       .target = &s.keys,
       .help = "file of this generator's key pair (memslot keygen); needed beyond this host"});
  table.add({.name = "server_key",
             .target = &s.server_key,
             .help = "file of the controller's public key"});
  table.add({.name = "resident_mib",
             .target = &s.resident_mib,
             .help = "loaded memories kept for the next swap",
             .unit = "MiB",
             .min = 0,
             .max = 1 << 20});
  table.add({.name = "outbox_mib",
             .target = &s.outbox_mib,
             .help = "write-backs and results that may wait for the controller",
             .unit = "MiB",
             .min = 1,
             .max = 1 << 20});
  table.add({.name = "max_sessions",
             .target = &s.max_sessions,
             .help = "sessions at once",
             .min = 1,
             .max = 256});
  table.add({.name = "max_waiting",
             .target = &s.max_waiting,
             .help = "sessions that may wait for a place; more are refused",
             .min = 0,
             .max = 4096});
  table.add({.name = "outer_seed",
             .target = &s.outer_seed,
             .help = "seed and name of the outer parameters of stateful memories",
             .min = 0});
  table.add({.name = "anchor_directory",
             .target = &s.anchor_directory,
             .help = "clean prose (*.txt) that learning must not change; auto: the samples; none"});
  table.add({.name = "control_file",
             .target = &s.control_file,
             .help = "passages on which locality is measured (JSON); auto: the samples; none"});
  table.add({.name = "flush_ms",
             .target = &s.flush_ms,
             .help = "how long to go on sending what waits when stopping",
             .unit = "ms",
             .min = 0,
             .max = 600'000});
  table.add({.name = "http",
             .target = &s.http,
             .help =
                 "serve OpenAI's API on ADDRESS:PORT; auto: 127.0.0.1:7402, unless that is taken, "
                 "or the link has keys or is ipc and there are no http_tokens; off"});
  table.add({.name = "http_tokens",
             .target = &s.http_tokens,
             .help = "file of bearer tokens, one a line; needed beyond loopback"});
  table.add({.name = "log_level",
             .target = &s.log_level,
             .help = "how much is logged",
             .choices = {"trace", "debug", "info", "warn", "error", "off"}});
  return table;
}

Result<ConfigOutcome> load_settings(int argc, const char* const* argv,
                                    const char* const* environment, GeneratorSettings* settings) {
  return settings_table(*settings).load(argc, argv, environment);
}

Result<GeneratorOptions> generator_options(const GeneratorSettings& s) {
  if (s.model.empty()) return invalid("model", "a model file or folder (--model)", "none");
  GeneratorOptions out;
  out.model = s.model;
  out.weights = s.weights;
  for (const std::string& text : s.slot_layers) {
    MEMSLOT_TRY(const int layer, layer_number(text));
    out.slot_layers.push_back(layer);
  }
  out.threads = static_cast<int>(s.threads);
  out.resident_bytes = static_cast<std::size_t>(s.resident_mib) << 20;
  out.outbox_bytes = static_cast<std::size_t>(s.outbox_mib) << 20;
  out.max_sessions = static_cast<int>(s.max_sessions);
  out.max_waiting = static_cast<int>(s.max_waiting);
  out.outer_seed = static_cast<std::uint64_t>(s.outer_seed);
  out.anchor_directory = text_path(s.anchor_directory, "prose");
  out.control_file = text_path(s.control_file, "control/development.json");
  out.flush = std::chrono::milliseconds(s.flush_ms);
  return out;
}

}  // namespace memslot
