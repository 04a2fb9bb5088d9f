// memslot-gains: makes the gain table of a text with a running pair (docs/formats/gains.md).
// `memslot gains` executes it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "rl/gains/dataset.h"
#include "rl/gains/make_table.h"
#include "shared/base/json_depth.h"
#include "shared/base/version.h"
#include "shared/files/write_file.h"

namespace memslot::gains_program {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFooter =
    "A run that was ended goes on where it was: what was learned is in the bank, and finished\n"
    "streams are in TABLE.rows until the table is written. TABLE.streams.json tells what was "
    "made.\n"
    "Exit codes: 0 success, 2 usage, 11 invalid argument, 12 not found, 13 corruption, 14 "
    "mismatch,\n"
    "17 unavailable, 20 no space, 22 i/o, 24 cancelled.";

struct Settings {
  PairConfig pair;
  DatasetFiles files;
  StreamOptions streams;
  TableOptions table;
  std::string out, config = "{}";
  int rank = 0, steps = 0;
  bool json = false;
};

// A status line that is written over where standard error is a terminal, else one line a change.
class Progress {
 public:
  explicit Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~Progress() {
    if (open_) std::fputc('\n', stderr);
  }
  void say(const std::string& text) {
    if (quiet_) return;
    std::fprintf(stderr, terminal_ ? "\r\x1b[K%s" : "%s\n", text.c_str());
    std::fflush(stderr);
    open_ = terminal_;
  }
  void tell(const TableProgress& p) {
    const auto now = std::chrono::steady_clock::now();
    if (phase_ != p.phase) phase_ = p.phase, since_ = now;
    const double seconds = std::chrono::duration<double>(now - since_).count();
    char text[200];
    std::snprintf(text, sizeof text, "%-8s %4zu of %4zu  %-40.40s %7.0f s, %.0f s to go", p.phase,
                  p.done, p.all, p.what.c_str(), seconds,
                  seconds / static_cast<double>(p.done) * static_cast<double>(p.all - p.done));
    say(text);
  }

 private:
  bool quiet_, terminal_, open_ = false;
  std::string phase_;
  std::chrono::steady_clock::time_point since_{};
};

// The learn configuration in canonical form: it takes part in the memories' names.
Result<std::string> learn_config(const Settings& s) {
  if (!json_depth_fits(s.config)) return invalid("--config nesting", "at most 64", "deeper");
  json config = json::parse(s.config, nullptr, false);
  if (!config.is_object()) return invalid("--config", "a JSON object", s.config);
  if (config.contains("kind") && config["kind"] != s.table.kind) {
    return invalid("--config", "the kind that --kind names", config["kind"].dump());
  }
  config["kind"] = s.table.kind;
  if (s.rank > 0) config["rank"] = s.rank;
  if (s.steps > 0) config["max_steps"] = s.steps;
  return config.dump();
}

Result<json> make(const Settings& given) {
  Settings s = given;
  MEMSLOT_TRY(s.streams.learn_config, learn_config(s));
  s.table.folder = s.out + ".rows";
  if (fs::is_directory(s.out)) return invalid("table", "a file's name", "the folder " + s.out);
  std::error_code failed;
  fs::create_directories(s.table.folder, failed);
  if (failed) {
    return Error{ErrorCode::kIo, s.table.folder + ": expected a folder, found " + failed.message()};
  }
  const auto started = std::chrono::steady_clock::now();
  Progress progress(s.json);
  MEMSLOT_TRY(const auto pair, Pair::connect(s.pair));
  MEMSLOT_TRY(const StreamSet set, make_dataset(*pair, s.files, s.streams,
                                                [&](const auto& what) { progress.say(what); }));
  MEMSLOT_TRY(write_file(s.out + ".streams.json", set.json()));
  MEMSLOT_TRY(const GainTable table,
              make_table(*pair, set, s.table, [&](const TableProgress& p) { progress.tell(p); }));
  MEMSLOT_TRY(table.save(s.out));
  fs::remove_all(s.table.folder, failed);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  return json{{"table", s.out},
              {"streams_file", s.out + ".streams.json"},
              {"sources", table.sources.size()},
              {"memories", table.memories.size()},
              {"streams", table.streams.size()},
              {"steps", table.rows()},
              {"seconds", seconds.count()}};
}

int fail(const Settings& s, const Error& error) {
  const std::string name(error_code_name(error.code));
  if (s.json) {
    const json said = {{"error", {{"code", name}, {"message", error.message}}}};
    std::printf("%s\n", said.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  } else {
    std::fprintf(stderr, "memslot-gains: %s: %s\n", name.c_str(), error.message.c_str());
  }
  return exit_code(error.code);
}

int work(const Settings& s) {
  const auto made = make(s);
  if (!made) return fail(s, made.error());
  const json& m = made.value();
  if (s.json) {
    std::printf("%s\n", m.dump().c_str());
  } else {
    std::printf("%s: %zu memories of %zu sources on %zu streams, %zu steps, in %.0f s\n",
                s.out.c_str(), m["memories"].get<std::size_t>(), m["sources"].get<std::size_t>(),
                m["streams"].get<std::size_t>(), m["steps"].get<std::size_t>(),
                m["seconds"].get<double>());
  }
  return 0;
}

// `memslot gains` passes its own on; what is said after it counts.
void add_pair_options(CLI::App& app, Settings& s, double& timeout_s) {
  app.option_defaults()->take_last();
  app.add_option("--endpoint", s.pair.endpoint, "Where the controller listens")
      ->envname("MEMSLOT_ENDPOINT")
      ->capture_default_str();
  app.add_option("--namespace,-n", s.pair.ns, "Whose memories")
      ->envname("MEMSLOT_NAMESPACE")
      ->capture_default_str();
  app.add_option("--timeout", timeout_s, "Seconds without a controller until it is given up")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--key", s.pair.key_file, "Own CURVE key pair (memslot keygen)")
      ->envname("MEMSLOT_KEY");
  app.add_option("--server-key", s.pair.server_key, "The controller's public key, Z85, or @FILE")
      ->envname("MEMSLOT_SERVER_KEY");
  app.add_flag("--json", s.json, "Print one JSON object");
}

void add_options(CLI::App& app, Settings& s) {
  app.add_option("text", s.files.text, "Articles in WikiText's form ( = Title = )")->required();
  app.add_option("table", s.out, "The gain table to write")->required();
  app.add_option("--seed", s.streams.seed, "Of splits, streams and generic memories")
      ->capture_default_str();
  app.add_option("--kind", s.table.kind, "Of the memories")
      ->check(CLI::IsMember({"lora", "mlp"}))
      ->capture_default_str();
  app.add_option("--rank", s.rank, "Of a lora memory")->check(CLI::Range(1, 256));
  app.add_option("--steps", s.steps, "At most so many optimizer steps")
      ->check(CLI::Range(1, 100000));
  app.add_option("--config", s.config, "More of the learn configuration, as JSON");
  app.add_option("--slot", s.table.slot, "Which slot")->check(CLI::Range(0, 63));
  app.add_option("--prose", s.files.prose, "Folder of clean prose, as samples/")
      ->capture_default_str();
  app.add_option("--articles", s.files.articles, "At most so many articles; 0: all")
      ->capture_default_str();
  const auto number = [&](const char* name, std::uint32_t& value, const char* help, int least,
                          int most) {
    app.add_option(name, value, help)->check(CLI::Range(least, most))->capture_default_str();
  };
  number("--memories-each", s.streams.memories_each, "Memories of one source, at most", 1, 1000);
  number("--memory-tokens", s.streams.memory_tokens, "Tokens that one memory learns", 128, 8192);
  number("--held-back", s.streams.held_back_tokens, "Tokens after them that none learns", 0, 8192);
  number("--streams", s.streams.streams, "Streams that switch sources", 1, 100000);
  number("--prompts", s.streams.prompts, "Prompt-only cases", 0, 100000);
  number("--continuations", s.streams.continuations, "Unseen continuations", 0, 100000);
  number("--stream-steps", s.streams.steps, "Steps of a switching stream", 2, 500);
  app.add_option("--candidates", s.table.candidates,
                 "Memories scored on each stream, the nearest ones; 0: all")
      ->capture_default_str();
}

int run(int argc, char** argv) {
  CLI::App app("memslot gains: what every memory would have been worth at every step",
               "memslot gains");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(build_version()));
  Settings s;
  s.files.prose = MEMSLOT_SAMPLES;
  double timeout_s = 10;
  add_pair_options(app, s, timeout_s);
  add_options(app, s);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  s.pair.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_s * 1000));
  return work(s);
}

}  // namespace
}  // namespace memslot::gains_program

int main(int argc, char** argv) { return memslot::gains_program::run(argc, argv); }
