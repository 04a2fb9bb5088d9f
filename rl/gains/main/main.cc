// memslot-gains: what needs both a dataset and a running pair. `memslot gains` and `memslot
// measure` execute it.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "rl/gains/main/commands.h"
#include "shared/base/json_dump.h"
#include "shared/base/version.h"

namespace memslot::gains_program {

PairConfig PairSettings::config() const {
  PairConfig out = pair;
  out.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(timeout_s * 1000));
  return out;
}

void add_pair_options(CLI::App& app, PairSettings& s) {
  app.set_version_flag("--version", std::string(build_version()));
  app.option_defaults()->take_last();
  app.add_option("--endpoint", s.pair.endpoint, "Where the controller listens")
      ->envname("MEMSLOT_ENDPOINT")
      ->capture_default_str();
  app.add_option("--namespace,-n", s.pair.ns, "Whose memories")
      ->envname("MEMSLOT_NAMESPACE")
      ->capture_default_str();
  app.add_option("--timeout", s.timeout_s, "Seconds without a controller until it is given up")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  app.add_option("--key", s.pair.key_file, "Own CURVE key pair (memslot keygen)")
      ->envname("MEMSLOT_KEY");
  app.add_option("--server-key", s.pair.server_key, "The controller's public key, Z85, or @FILE")
      ->envname("MEMSLOT_SERVER_KEY");
  app.add_flag("--json", s.json, "Print one JSON object");
}

int run_command(CLI::App& app, int argc, char** argv, const PairSettings& s,
                const std::function<Status()>& work) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  const Status done = work();
  if (done) return 0;
  const Error& error = done.error();
  const std::string name(error_code_name(error.code));
  if (s.json) {
    using nlohmann::json;
    const json said = {{"error", {{"code", name}, {"message", error.message}}}};
    std::printf("%s\n", dump(said).c_str());
  } else {
    std::fprintf(stderr, "memslot-gains: %s: %s\n", name.c_str(), error.message.c_str());
  }
  return exit_code(error.code);
}

StatusLine::StatusLine(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

StatusLine::~StatusLine() {
  if (open_) std::fputc('\n', stderr);
}

void StatusLine::say(const std::string& text) {
  if (quiet_) return;
  std::fprintf(stderr, terminal_ ? "\r\x1b[K%s" : "%s\n", text.c_str());
  std::fflush(stderr);
  open_ = terminal_;
}

void StatusLine::tell(const Progress& p) {
  const auto now = std::chrono::steady_clock::now();
  if (phase_ != p.phase) phase_ = p.phase, since_ = now;
  const double seconds = std::chrono::duration<double>(now - since_).count();
  char text[200];
  std::snprintf(text, sizeof text, "%-9s %4zu of %4zu  %-40.40s %7.0f s, %.0f s to go", p.phase,
                p.done, p.all, p.what.c_str(), seconds,
                seconds / static_cast<double>(p.done) * static_cast<double>(p.all - p.done));
  say(text);
}

}  // namespace memslot::gains_program

int main(int argc, char** argv) {
  namespace program = memslot::gains_program;
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "gains") return program::run_gains(argc - 1, argv + 1);
  if (command == "measure") return program::run_measure(argc - 1, argv + 1);
  std::fprintf(stderr, "usage: memslot-gains gains|measure [OPTION...] (--help)\n");
  return 2;
}
