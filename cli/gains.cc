#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "cli/commands.h"

namespace memslot::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "memslot-gains";

// The program beside this one.
Result<std::string> find_program() {
  std::error_code failure;
  const fs::path own = fs::read_symlink("/proc/self/exe", failure);
  const std::string path = (own.parent_path() / kProgram).string();
  if (!failure && access(path.c_str(), X_OK) == 0) return path;
  return Error{ErrorCode::kNotFound, "program: expected " + path + ", found none"};
}

// Becomes memslot-gains, with the options that all commands share; returns only if that fails.
int execute(const Context& context, const std::vector<std::string>& arguments) {
  const Output out = context.output();
  const auto program = find_program();
  if (!program) return out.fail(program.error());
  char timeout[32];
  std::snprintf(timeout, sizeof timeout, "%.3f",
                std::chrono::duration<double>(context.client.timeout).count());
  std::vector<std::string> words = {kProgram,      "--endpoint", context.client.endpoint,
                                    "--namespace", context.ns,   "--timeout",
                                    timeout};
  if (context.json) words.emplace_back("--json");
  if (!context.client.key_file.empty())
    words.insert(words.end(), {"--key", context.client.key_file});
  if (!context.client.server_key.empty())
    words.insert(words.end(), {"--server-key", context.client.server_key});
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.value().c_str(), argv.data());
  return out.fail({ErrorCode::kIo, program.value() + ": " + std::strerror(errno)});
}

}  // namespace

void add_gains(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand(
      "gains", "Learn the memories of a text and make their gain table (memslot gains --help)");
  command->set_help_flag();  // memslot-gains has its own
  command->prefix_command();
  command->fallthrough(false);  // all that follows is its own
  command->callback([command, &context] {
    context.run = [command, &context] { return execute(context, command->remaining()); };
  });
}

}  // namespace memslot::cli
