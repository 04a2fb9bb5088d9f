// `memslot measure`: what schedules are worth in mode `activated` (docs/formats/training.md).
#include <cstdio>
#include <nlohmann/json.hpp>

#include "rl/gains/main/commands.h"
#include "rl/gains/measure.h"

namespace memslot::gains_program {
namespace {

constexpr const char* kFooter =
    "memslot eval TABLE POLICY --schedules SCHEDULES writes what is to be measured, with\n"
    "--activated MEASURED it reads what this command wrote. A run that was ended goes on where it\n"
    "was.\n"
    "\n"
    "Example:\n"
    "  memslot eval gains.safetensors p.safetensors --schedules schedules.jsonl\n"
    "  memslot measure gains.safetensors schedules.jsonl measured.jsonl\n"
    "\n";

struct Settings {
  PairSettings pair;
  std::string table;
  MeasureFiles files;
};

Status work(const Settings& s) {
  MeasureFiles files = s.files;
  files.dataset = s.table + ".streams.json";
  StatusLine status(s.pair.json);
  MEMSLOT_TRY(const auto pair, Pair::connect(s.pair.config()));
  MEMSLOT_TRY(const std::size_t lines,
              measure_schedules(*pair, files, [&](const Progress& p) { status.tell(p); }));
  if (s.pair.json) {
    const nlohmann::json said = {{"schedules", lines}, {"measured", files.out}};
    std::printf("%s\n", said.dump().c_str());
  } else {
    std::printf("%s: %zu schedules\n", files.out.c_str(), lines);
  }
  return ok();
}

}  // namespace

int run_measure(int argc, char** argv) {
  CLI::App app("memslot measure: what schedules are worth where a swap leaves the cache as it is",
               "memslot measure");
  app.footer(std::string(kFooter) + kExitCodes);
  Settings s;
  add_pair_options(app, s.pair);
  app.add_option("table", s.table, "The gain table; beside it TABLE.streams.json")->required();
  app.add_option("schedules", s.files.schedules, "What memslot eval --schedules wrote")->required();
  app.add_option("measured", s.files.out, "The file to write")->required();
  return run_command(app, argc, argv, s.pair, [&] { return work(s); });
}

}  // namespace memslot::gains_program
