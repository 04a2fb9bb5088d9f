// memslot-rl: training and evaluation of the learned policy from gain tables, without a running
// pair. `memslot train` and `memslot eval` execute it.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>

#include "rl/main/commands.h"
#include "shared/base/digest.h"
#include "shared/base/version.h"

namespace memslot::rl_program {
namespace {

constexpr const char* kFooter =
    "Exit codes: 0 success, 1 unexpected failure, 2 usage, 11 invalid argument, 12 not found,\n"
    "13 corruption, 14 mismatch, 20 no space, 22 i/o, 24 cancelled (interrupted; what was learned "
    "is\n"
    "saved), 26 internal.";

int run(int argc, char** argv) {
  CLI::App app("memslot-rl: learns and judges the policy that chooses memories", "memslot-rl");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(build_version()));
  app.require_subcommand(1);
  app.fallthrough();
  Context context;
  app.add_flag("--json", context.json, "Print one JSON object");
  add_train(app, context);
  add_eval(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return context.run();
}

}  // namespace

CLI::Validator number_in(double least, double most) {
  const auto check = [least, most](const std::string& text) -> std::string {
    double value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    const bool good = parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(value) &&
                      value >= least && value <= most;
    if (good) return "";
    return "expected a number from " + CLI::detail::to_string(least) + " to " +
           CLI::detail::to_string(most) + ", found " + text;
  };
  return {check, "[" + CLI::detail::to_string(least) + " - " + CLI::detail::to_string(most) + "]"};
}

CLI::Validator whole_number_in(std::uint32_t least, std::uint32_t most) {
  const std::string bounds = std::to_string(least) + " to " + std::to_string(most);
  const auto check = [=](const std::string& text) -> std::string {
    std::uint32_t value = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    const bool good =
        parsed.ec == std::errc() && parsed.ptr == end && value >= least && value <= most;
    return good ? "" : "expected a whole number from " + bounds + ", found " + text;
  };
  return {check, "[" + bounds + "]"};
}

Result<LoadedTable> load_table(const std::string& path) {
  LoadedTable out;
  MEMSLOT_TRY(out.table, GainTable::load(path));
  MEMSLOT_TRY(const Sha256 digest, sha256_of_file(path));
  out.digest = digest.hex();
  return out;
}

}  // namespace memslot::rl_program

int main(int argc, char** argv) { return memslot::rl_program::run(argc, argv); }
