// `memslot gains`: the gain table of a text (docs/formats/gains.md).
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "rl/gains/dataset.h"
#include "rl/gains/main/commands.h"
#include "rl/gains/make_table.h"
#include "shared/base/json_depth.h"
#include "shared/files/write_file.h"

namespace memslot::gains_program {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFooter =
    "A run that was ended goes on where it was: what was learned is in the bank, and finished\n"
    "streams are in TABLE.rows until the table is written. TABLE.streams.json tells what was "
    "made.\n"
    "\n"
    "Example:\n"
    "  memslot gains wikitext2-valid.txt gains.safetensors --memories-each 4 --kind lora\n"
    "\n";

struct Settings {
  PairSettings pair;
  DatasetFiles files;
  StreamOptions streams;
  TableOptions table;
  std::string out, config = "{}";
  int rank = 0, steps = 0;
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
  StatusLine progress(s.pair.json);
  MEMSLOT_TRY(const auto pair, Pair::connect(s.pair.config()));
  MEMSLOT_TRY(const StreamSet set, make_dataset(*pair, s.files, s.streams,
                                                [&](const auto& what) { progress.say(what); }));
  MEMSLOT_TRY(write_file(s.out + ".streams.json", set.json()));
  MEMSLOT_TRY(const GainTable table,
              make_table(*pair, set, s.table, [&](const Progress& p) { progress.tell(p); }));
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

Status work(const Settings& s) {
  MEMSLOT_TRY(const json made, make(s));
  if (s.pair.json) {
    std::printf("%s\n", made.dump().c_str());
  } else {
    std::printf("%s: %zu memories of %zu sources on %zu streams, %zu steps, in %.0f s\n",
                s.out.c_str(), made["memories"].get<std::size_t>(),
                made["sources"].get<std::size_t>(), made["streams"].get<std::size_t>(),
                made["steps"].get<std::size_t>(), made["seconds"].get<double>());
  }
  return ok();
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

}  // namespace

int run_gains(int argc, char** argv) {
  CLI::App app("memslot gains: what every memory would have been worth at every step",
               "memslot gains");
  app.footer(std::string(kFooter) + kExitCodes);
  Settings s;
  s.files.prose = MEMSLOT_SAMPLES;
  add_pair_options(app, s.pair);
  add_options(app, s);
  return run_command(app, argc, argv, s.pair, [&] { return work(s); });
}

}  // namespace memslot::gains_program
