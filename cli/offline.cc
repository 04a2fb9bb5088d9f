#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cli/commands.h"

namespace memslot::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "memslot-rl";

// The program beside this one.
Result<std::string> find_program() {
  std::error_code failure;
  const fs::path own = fs::read_symlink("/proc/self/exe", failure);
  const std::string path = (own.parent_path() / kProgram).string();
  if (!failure && access(path.c_str(), X_OK) == 0) return path;
  return Error{ErrorCode::kNotSupported,
               "training and evaluation: expected the program " + path +
                   ", found none (it is built where libtorch is installed)"};
}

// Becomes memslot-rl; returns only if that fails.
int execute(const Context& context, const std::string& command,
            const std::vector<std::string>& arguments) {
  const Output out = context.output();
  const auto program = find_program();
  if (!program) return out.fail(program.error());
  std::vector<std::string> words = {kProgram};
  if (context.json) words.emplace_back("--json");
  words.push_back(command);
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.value().c_str(), argv.data());
  return out.fail({ErrorCode::kIo, program.value() + ": " + std::strerror(errno)});
}

void add_passed_on(CLI::App& app, Context& context, const std::string& name,
                   const std::string& what) {
  auto* command = app.add_subcommand(name, what);
  // Options are memslot-rl's, --help too.
  command->set_help_flag();
  command->prefix_command();
  command->fallthrough(false);
  command->callback([command, name, &context] {
    context.run = [command, name, &context] {
      return execute(context, name, command->remaining());
    };
  });
}

}  // namespace

void add_offline(CLI::App& app, Context& context) {
  add_passed_on(app, context, "train",
                "Learn a policy from a gain table (memslot train --help; needs no pair)");
  add_passed_on(app, context, "eval",
                "Hold a policy against rules and references (memslot eval --help; needs no pair)");
}

}  // namespace memslot::cli
