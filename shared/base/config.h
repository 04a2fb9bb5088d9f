#pragma once
// A program's settings: one table of typed fields, filled once in main and passed on as a plain
// struct. Later wins: default, TOML file (--config FILE), environment, command line.
//
//   struct Settings { std::string bank = "bank"; std::int64_t heartbeat_ms = 1000; };
//   Settings s;
//   ConfigTable table("memslot-controller", "MEMSLOT_CONTROLLER");
//   table.add({.name = "bank", .target = &s.bank, .help = "directory of the bank"});
//   table.add({.name = "heartbeat_ms", .target = &s.heartbeat_ms, .help = "...", .unit = "ms",
//              .min = 10, .max = 60000});
//   MEMSLOT_TRY(auto outcome, table.load(argc, argv, environ));
//   if (!outcome.run) { print outcome.text; return 0; }
//
// A field "heartbeat_ms" is `heartbeat_ms` in the file, MEMSLOT_CONTROLLER_HEARTBEAT_MS in the
// environment and --heartbeat-ms on the command line (--heartbeat_ms too; "--x V" or "--x=V"; a
// bool needs no value). A list is repeated on the command line, separated by ';' in the environment
// and an array in the file; each level replaces the one before it. --help and --help-config end
// with text to print. Unknown names, in the file, on the command line or in the environment under
// the prefix, are errors; so are values of another type and out of bounds, which name what is
// accepted.
//
// Owner:   the caller owns the targets, which must outlive the table.
// Threads: one.
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

struct ConfigField {
  using Target =
      std::variant<std::string*, bool*, std::int64_t*, double*, std::vector<std::string>*>;
  std::string name{};  // snake_case
  Target target{};     // holds the default when it is added
  std::string help{};
  std::string unit{};                                     // "" where there is none
  double min = -std::numeric_limits<double>::infinity();  // of numbers
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices{};  // of texts; empty: any
};

struct ConfigOutcome {
  bool run = true;  // false: print `text` and end with success
  std::string text{};
};

class ConfigTable {
 public:
  // `about` is one line for --help, `more` what stands behind its options: examples, files,
  // signals.
  ConfigTable(std::string program, std::string environment_prefix, std::string about = "",
              std::string more = "");

  // REQUIRES: a new name and a target that is not null.
  void add(ConfigField field);

  // Targets are changed even if an error follows. `environment` ends with a null pointer, or is
  // null itself. kInvalidArgument (unknown name, type, bounds), kNotFound and kIo (the file).
  Result<ConfigOutcome> load(int argc, const char* const* argv, const char* const* environment);

  // A Markdown table: name, type, unit, default, bounds, help. docs/operations.md holds it.
  std::string describe() const;

 private:
  struct Entry {
    ConfigField field;
    std::string default_text;
  };
  Entry* find(std::string_view name);
  Status load_file(const std::string& path);
  Status load_environment(const char* const* environment);
  Status load_arguments(const std::vector<std::string_view>& arguments);
  std::string usage() const;

  std::string program_;
  std::string prefix_;
  std::string about_, more_;
  std::vector<Entry> entries_;
};

}  // namespace memslot
