#pragma once
// The subcommands of memslot-rl. Each add_*() declares its options on the application and, when it
// was chosen, sets `run` to what main() then calls; the returned value is the process's exit code.
//
// Threads: one.
#include <functional>
#include <string>

#include "rl/gain_table.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace memslot::rl_program {

struct Context {
  bool json = false;
  std::function<int()> run;
};

void add_train(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);

// A finite number from `least` to `most`.
CLI::Validator number_in(double least, double most);
CLI::Validator whole_number_in(std::uint32_t least, std::uint32_t most);

struct LoadedTable {
  GainTable table;
  std::string digest;  // SHA-256 of the file, hex
};
Result<LoadedTable> load_table(const std::string& path);

}  // namespace memslot::rl_program
