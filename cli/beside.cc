#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/commands.h"
#include "shared/base/beside.h"

namespace memslot::cli {
namespace {

using Words = std::vector<std::string>;

// What the other program is told before its own arguments.
using Leading = std::function<Words(const Context&)>;

// A program beside this one; `code` and `absent` say what it means that it is not there.
struct Program {
  const char* name;
  ErrorCode code;
  const char* expected;
  const char* absent;
};
constexpr Program kRl{"memslot-rl", ErrorCode::kNotSupported,
                      "training and evaluation: expected the program ",
                      ", found none (it is built where libtorch is installed)"};
constexpr Program kGains{"memslot-gains", ErrorCode::kNotFound, "program: expected ",
                         ", found none"};

Result<std::string> find(const Program& program) {
  const std::string path = path_beside_this(program.name);
  if (access(path.c_str(), X_OK) == 0) return path;
  return Error{program.code, program.expected + path + program.absent};
}

// Becomes the program; returns only if that fails.
int become(const Program& program, const Context& context, Words words) {
  const Output out = context.output();
  const auto path = find(program);
  if (!path) return out.fail(path.error());
  words.insert(words.begin(), program.name);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(path.value().c_str(), argv.data());
  return out.fail({ErrorCode::kIo, path.value() + ": " + std::strerror(errno)});
}

// The command's name and the options that all commands share.
Words command_line(const std::string& name, const Context& context) {
  char timeout[32];
  std::snprintf(timeout, sizeof timeout, "%.3f",
                std::chrono::duration<double>(context.client.timeout).count());
  Words words = {name,        "--endpoint", context.client.endpoint, "--namespace", context.ns,
                 "--timeout", timeout};
  if (context.json) words.emplace_back("--json");
  if (!context.client.key_file.empty())
    words.insert(words.end(), {"--key", context.client.key_file});
  if (!context.client.server_key.empty())
    words.insert(words.end(), {"--server-key", context.client.server_key});
  return words;
}

void add_passed_on(CLI::App& app, Context& context, const Program& program, const std::string& name,
                   const std::string& what, const Leading& leading) {
  auto* command = app.add_subcommand(name, what);
  // All that follows is the program's own, --help too.
  command->set_help_flag();
  command->prefix_command();
  command->fallthrough(false);
  command->callback([command, &program, leading, &context] {
    context.run = [command, &program, leading, &context] {
      Words words = leading(context);
      const Words own = command->remaining();
      words.insert(words.end(), own.begin(), own.end());
      return become(program, context, std::move(words));
    };
  });
}

void add_rl(CLI::App& app, Context& context, const std::string& name, const std::string& what) {
  add_passed_on(app, context, kRl, name, what, [name](const Context& c) {
    return c.json ? Words{"--json", name} : Words{name};
  });
}

}  // namespace

void add_offline(CLI::App& app, Context& context) {
  add_rl(app, context, "train",
         "Learn a policy from a gain table (memslot train --help; needs no pair)");
  add_rl(app, context, "eval",
         "Hold a policy against rules and references (memslot eval --help; needs no pair)");
}

void add_gains(CLI::App& app, Context& context) {
  const auto add = [&](const std::string& name, const std::string& what) {
    add_passed_on(app, context, kGains, name, what + " (memslot " + name + " --help)",
                  [name](const Context& c) { return command_line(name, c); });
  };
  add("gains", "Learn the memories of a text and make their gain table");
  add("measure", "What a policy's choices are worth without recomputing the cache");
}

}  // namespace memslot::cli
