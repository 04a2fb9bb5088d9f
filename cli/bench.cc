#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct BenchOptions {
  std::vector<std::string> what;
  std::string memory = "base";
  int tokens = 0, repeats = 0;
};

const std::vector<std::string> kBenches = {"decode",    "prefill",    "swap",
                                           "recompute", "learn_step", "round_trip"};

Status bench(Client& client, const Output& out, const BenchOptions& o) {
  json all = json::array();
  for (const auto& what : o.what.empty() ? kBenches : o.what) {
    json arguments = {{"what", what}, {"memory", o.memory}};
    if (o.tokens > 0) arguments["tokens"] = o.tokens;
    if (o.repeats > 0) arguments["repeats"] = o.repeats;
    out.status(what);
    MEMSLOT_TRY(const auto report,
                client.run("bench", arguments, [&](const json& e) { out.event(e); }));
    out.clear_status();
    std::string line = what;
    line.resize(std::max<std::size_t>(line.size(), 12), ' ');
    for (const auto& [name, value] : report->items()) {
      if (name != "type" && name != "what") line += "  " + name + " " + value.dump();
    }
    out.line(line);
    all.push_back(*report);
  }
  out.result({{"bench", all}});
  return ok();
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("bench", "Measure the running pair");
  auto o = std::make_shared<BenchOptions>();
  command->add_option("what", o->what, "Default: all")->check(CLI::IsMember(kBenches));
  command->add_option("--memory,-m", o->memory, "Active while decoding")->capture_default_str();
  command->add_option("--tokens", o->tokens, "Length of one run");
  command->add_option("--repeats", o->repeats, "Runs; the median is reported");
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client([&](Client& c, const Output& out) { return bench(c, out, *o); });
    };
  });
}

}  // namespace memslot::cli
