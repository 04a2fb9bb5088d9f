#pragma once
// The subcommands. Each add_*() declares its options on the application and, when it was chosen,
// sets `run` to what main() then calls; the returned value is the process's exit code.
//
// Threads: one.
#include <functional>
#include <string>

#include "cli/client.h"
#include "cli/output.h"

namespace CLI {
class App;
}

namespace memslot::cli {

struct Context {
  ClientConfig client;
  std::string ns = "default";
  bool json = false;
  bool stream = false;
  std::function<int()> run;

  Output output() const { return {json, stream}; }
  // `memory` with its namespace: this one where it names none.
  std::string qualified(const std::string& memory) const {
    return memory.find('/') == std::string::npos ? ns + "/" + memory : memory;
  }
  // Connects, runs `body`, prints its error; the exit code.
  int with_client(const std::function<Status(Client&, const Output&)>& body) const;
};

void add_learn(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_score(CLI::App& app, Context& context);
void add_tokenize(CLI::App& app, Context& context);
void add_attest(CLI::App& app, Context& context);
void add_status(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_bank(CLI::App& app, Context& context);
void add_jobs(CLI::App& app, Context& context);
void add_policy(CLI::App& app, Context& context);
void add_trace(CLI::App& app, Context& context);
void add_demo(CLI::App& app, Context& context);
void add_keygen(CLI::App& app, Context& context);
// train and eval: memslot-rl does them; gains and measure: memslot-gains.
void add_offline(CLI::App& app, Context& context);
void add_gains(CLI::App& app, Context& context);

// What --help of the commands says beside their options. After all of the above.
void add_help(CLI::App& app);

// A file that a reply brought, replaced as a whole; into a pipe or device as it is. kCorruption:
// none came; kNoSpace, kIo.
Status save_file(const Output& out, const std::string& path, const SharedBytes& file);
// A whole file; "-" is standard input. kNotFound, kIo.
Result<std::string> read_text_file(const std::string& path);

}  // namespace memslot::cli
