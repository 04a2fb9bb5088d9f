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

bool needs_a_memory(const std::string& what) { return what == "swap" || what == "recompute"; }

std::string line_of(std::string what, const json& report) {
  what.resize(std::max<std::size_t>(what.size(), 12), ' ');
  for (const auto& [name, value] : report.items()) {
    if (name != "type" && name != "what") what += "  " + name + " " + value.dump();
  }
  return what;
}

Result<std::shared_ptr<json>> measure(Client& client, const Output& out, const Context& context,
                                      const BenchOptions& o, const std::string& what) {
  json arguments = {{"what", what}, {"memory", o.memory}, {"namespaces", {context.ns}}};
  if (o.tokens > 0) arguments["tokens"] = o.tokens;
  if (o.repeats > 0) arguments["repeats"] = o.repeats;
  out.status(what);
  auto report = client.run("bench", arguments, [&](const json& e) { out.event(e); });
  out.clear_status();
  return report;
}

// What was measured before one that fails is shown all the same.
Status bench(Client& client, const Output& out, const Context& context, const BenchOptions& o) {
  json all = json::array(), skipped = json::array();
  Status status = ok();
  for (const auto& what : o.what.empty() ? kBenches : o.what) {
    if (o.what.empty() && o.memory == "base" && needs_a_memory(what)) {
      out.line(what + ": skipped, it needs a memory (-m ID)");
      skipped.push_back(what);
      continue;
    }
    const auto report = measure(client, out, context, o, what);
    if (!report) {
      status = report.error().with_context(what);
      break;
    }
    out.line(line_of(what, *report.value()));
    all.push_back(*report.value());
  }
  if (status || !all.empty()) out.result({{"bench", all}, {"skipped", skipped}});
  return status;
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("bench", "Measure the running pair");
  auto o = std::make_shared<BenchOptions>();
  command->add_option("what", o->what, "Default: all")->check(CLI::IsMember(kBenches));
  command->add_option("--memory,-m", o->memory, "Active while decoding; swapped in")
      ->capture_default_str();
  command->add_option("--tokens", o->tokens, "Length of one run");
  command->add_option("--repeats", o->repeats, "Runs; the median is reported");
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& c, const Output& out) { return bench(c, out, context, *o); });
    };
  });
}

}  // namespace memslot::cli
