// memslot: the command line client of a running pair.
#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/limits.h"
#include "shared/base/log.h"
#include "shared/base/version.h"

namespace memslot::cli {
namespace {

constexpr const char* kFooter =
    "Begin with: memslot status; memslot learn FILE; memslot generate --stream 'TEXT'. Each "
    "command has its\n"
    "own --help with examples; the pages of docs/ say the rest. Options before or after the "
    "command.\n"
    "\n"
    "Exit codes: 0 success, 1 unexpected failure, 2 usage, 11 invalid argument, 12 not found,\n"
    "13 corruption, 14 mismatch, 15 conflict, 16 indeterminate, 17 unavailable, 18 timeout,\n"
    "19 overloaded, 20 no space, 21 busy, 22 i/o, 23 not supported, 24 cancelled, 25 permission,\n"
    "26 internal.";

void add_common(CLI::App& app, Context& context, double& timeout_s) {
  app.add_option("--endpoint", context.client.endpoint, "Where the controller listens")
      ->envname("MEMSLOT_ENDPOINT")
      ->capture_default_str();
  app.add_option("--namespace,-n", context.ns, "Whose memories")
      ->envname("MEMSLOT_NAMESPACE")
      ->capture_default_str();
  app.add_flag("--json", context.json, "Print one JSON object (with --stream: a line per event)");
  app.add_flag("--stream", context.stream, "Show the output as it comes");
  app.add_option("--timeout", timeout_s,
                 "Seconds of silence after which the controller is given up")
      ->check(number_from(0.1, 3600))
      ->capture_default_str();
  app.add_option("--key", context.client.key_file, "Own CURVE key pair (memslot keygen)")
      ->envname("MEMSLOT_KEY");
  app.add_option("--server-key", context.client.server_key,
                 "The controller's public key: Z85, or @FILE")
      ->envname("MEMSLOT_SERVER_KEY");
}

int run(int argc, char** argv) {
  CLI::App app("memslot: exchangeable memory for a frozen GPT", "memslot");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(build_version()));
  app.require_subcommand(1);
  app.fallthrough();
  Context context;
  double timeout_s = 10;
  add_common(app, context, timeout_s);
  add_learn(app, context);
  add_generate(app, context);
  add_score(app, context);
  add_tokenize(app, context);
  add_attest(app, context);
  add_status(app, context);
  add_bench(app, context);
  add_bank(app, context);
  add_jobs(app, context);
  add_policy(app, context);
  add_trace(app, context);
  add_demo(app, context);
  add_keygen(app, context);
  add_offline(app, context);
  add_gains(app, context);
  add_help(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& e) {
    // CLI11 asks for a command before it looks at what stands in its place.
    const auto unknown = app.remaining();
    if (!unknown.empty()) {
      return context.output().usage("unknown command " + unknown.front() + " (see memslot --help)");
    }
    app.exit(e);
    return 2;
  } catch (const CLI::ExtrasError&) {
    std::string rest;
    for (const std::string& word : app.remaining(/*recurse=*/true)) rest += " " + word;
    return context.output().usage("unexpected" + rest +
                                  " (a text of several words stands in quotes; see --help)");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  // What the link would log, the command says itself, once and where it belongs.
  if (const auto quiet = log::start("memslot", "off"); !quiet) return 1;
  context.client.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_s * 1000));
  return context.run();
}

}  // namespace
}  // namespace memslot::cli

int main(int argc, char** argv) { return memslot::cli::run(argc, argv); }
