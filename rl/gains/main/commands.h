#pragma once
// The commands of memslot-gains, each an application of its own: arguments in, exit code out.
#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "rl/gains/pair.h"
#include "rl/gains/side_by_side.h"

namespace memslot::gains_program {

int run_gains(int argc, char** argv);
int run_measure(int argc, char** argv);

inline constexpr const char* kExitCodes =
    "Exit codes: 0 success, 2 usage, 11 invalid argument, 12 not found, 13 corruption, 14 "
    "mismatch,\n17 unavailable, 20 no space, 22 i/o, 24 cancelled.";

// How the pair is reached and how results are shown.
struct PairSettings {
  PairConfig pair;
  double timeout_s = 10;
  bool json = false;

  PairConfig config() const;
};
// `memslot` passes its own on; what is said after it counts.
void add_pair_options(CLI::App& app, PairSettings& s);

// Parses, then runs `work`; says the error, if any.
int run_command(CLI::App& app, int argc, char** argv, const PairSettings& s,
                const std::function<Status()>& work);

// A status line that is written over where standard error is a terminal, else one line a change.
class StatusLine {
 public:
  explicit StatusLine(bool quiet);
  ~StatusLine();
  void say(const std::string& text);
  void tell(const Progress& progress);

 private:
  bool quiet_, terminal_, open_ = false;
  std::string phase_;
  std::chrono::steady_clock::time_point since_{};
};

}  // namespace memslot::gains_program
