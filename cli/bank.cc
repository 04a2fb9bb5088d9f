#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/fields.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct BankOptions {
  std::string memory, file, id, source, prefix, directory, bank;
  std::uint64_t to = 0;
  int limit = 1000;
};

// NS/ID@VERSION of a version's JSON (docs/formats/memory.md).
std::string name_of(const json& v) {
  return v.value("namespace", "") + "/" + v.value("id", "") + "@" +
         std::to_string(v.value("version", std::uint64_t{0}));
}

std::string version_line(const Output& out, const json& v) {
  char text[256];
  const json stats = v.value("stats", json::object());
  const json signature = v.value("signature", json::object());
  const std::string memory = name_of(v);
  std::snprintf(text, sizeof text, "  %-6s %-5s %9.1f kB  recall %5s %%  %-10s %s",
                signature.value("kind", "").c_str(), v.value("dtype", "").c_str(),
                v.value("payload_bytes", 0.0) / 1024, figure(stats, "recall", "%.1f", 100).c_str(),
                v.value("origin", "").c_str(), v.value("source", "").c_str());
  std::string name = memory;
  name.resize(std::max<std::size_t>(name.size(), 40), ' ');
  return out.coloured(memory, name) + text;
}

Status list(Client& client, const Output& out, const Context& context, const BankOptions& o) {
  json all = json::array();
  json arguments = {{"namespace", context.ns}, {"limit", 500}};
  if (!o.prefix.empty()) arguments["prefix"] = o.prefix;
  if (!o.source.empty()) arguments["source"] = o.source;
  do {
    MEMSLOT_TRY(const auto page, client.ask("bank.ls", arguments, nullptr));
    for (const auto& version : (*page.result)["memories"]) {
      if (static_cast<int>(all.size()) >= o.limit) break;
      out.line(version_line(out, version));
      all.push_back(version);
    }
    arguments["after"] = page.result->value("next", "");
  } while (arguments["after"] != "" && static_cast<int>(all.size()) < o.limit);
  out.result({{"memories", all}});
  if (all.empty()) {
    out.line("no memories in namespace " + context.ns +
             (o.prefix.empty() ? "" : " that begin with " + o.prefix));
  }
  return ok();
}

Status print_reply(Client& client, const Output& out, const std::string& verb,
                   const json& arguments) {
  MEMSLOT_TRY(const auto reply, client.ask(verb, arguments, nullptr));
  out.result(*reply.result);
  out.line(fields(*reply.result));
  return ok();
}

Status history(Client& client, const Output& out, const Context& context, const BankOptions& o) {
  json all = json::array();
  json arguments = {{"memory", context.qualified(o.memory)}, {"after", 0}};
  do {
    MEMSLOT_TRY(const auto page, client.ask("bank.history", arguments, nullptr));
    for (const auto& version : (*page.result)["versions"]) {
      out.line(version_line(out, version));
      all.push_back(version);
    }
    arguments["after"] = page.result->value("next", 0);
  } while (arguments["after"] != 0);
  out.result({{"versions", all}});
  return ok();
}

Status export_memory(Client& client, const Output& out, const Context& context,
                     const BankOptions& o) {
  MEMSLOT_TRY(const auto reply,
              client.ask("bank.export", {{"memory", context.qualified(o.memory)}}, nullptr));
  MEMSLOT_TRY(save_file(out, o.file, reply.part));
  out.result(*reply.result);
  return ok();
}

Status import_memory(Client& client, const Output& out, const Context& context,
                     const BankOptions& o) {
  MEMSLOT_TRY(const auto text, read_text_file(o.file));
  const auto view = bytes_of(text);
  json arguments = {{"namespace", context.ns}};
  if (!o.id.empty()) arguments["id"] = o.id;
  MEMSLOT_TRY(const auto reply,
              client.ask("bank.import", arguments,
                         std::make_shared<const std::vector<std::byte>>(view.begin(), view.end())));
  out.result(*reply.result);
  out.line("imported " + name_of((*reply.result)["version"]));
  return ok();
}

// The controller has another working folder, and may run on another machine.
Status backup(Client& client, const Output& out, const BankOptions& o) {
  std::error_code failure;
  const auto path = std::filesystem::absolute(o.directory, failure);
  if (o.directory.empty() || failure) return invalid("backup directory", "a path", o.directory);
  return print_reply(client, out, "bank.backup", {{"directory", path.lexically_normal().string()}});
}

Status verify(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto report, client.run("verify", json::object(), [&](const json& event) {
    out.event(event);
    out.status("verified " + std::to_string(event.value("done", 0)));
  }));
  out.clear_status();
  out.result(*report);
  out.line(fields(*report));
  const auto bad = report->contains("bad") ? (*report)["bad"].size() : 0;
  if (bad != 0) return corrupt("bank", "0 bad payloads", bad);
  return ok();
}

using Body = Status (*)(Client&, const Output&, const Context&, const BankOptions&);

CLI::App* add_verb(CLI::App& bank, Context& context, const std::shared_ptr<BankOptions>& o,
                   const char* name, const char* help, Body body) {
  auto* command = bank.add_subcommand(name, help);
  command->callback([o, &context, body] {
    context.run = [o, &context, body] {
      return context.with_client(
          [&](Client& c, const Output& out) { return body(c, out, context, *o); });
    };
  });
  return command;
}

// What `program` says on standard error, and its exit status; -1 where it does not run.
int run_quietly(std::vector<std::string> arguments, std::string& errors) {
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  pid_t child = -1;
  const int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    errors.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  if (failed != 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int restore_as_json(const Output& out, const std::string& program, const BankOptions& o) {
  std::string errors;
  const int status = run_quietly({program, "--restore", o.directory, "--bank", o.bank}, errors);
  if (status == 0) {
    out.result({{"restored", o.bank}, {"from", o.directory}});
    return 0;
  }
  if (status < 0) {
    return out.fail(
        {ErrorCode::kNotFound, "program: cannot run " + program + " (set MEMSLOT_CONTROLLER)"});
  }
  // The last line; its exit code is an error's, or that of wrong settings.
  while (errors.ends_with('\n')) errors.pop_back();
  std::string message = errors.substr(errors.rfind('\n') + 1);
  const std::string prefix = "memslot-controller: ";
  if (message.starts_with(prefix)) message.erase(0, prefix.size());
  auto code = status == 2 ? ErrorCode::kInvalidArgument : ErrorCode::kInternal;
  for (int i = 1; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    if (exit_code(static_cast<ErrorCode>(i)) == status) code = static_cast<ErrorCode>(i);
  }
  return out.fail({code, message});
}

void add_restore(CLI::App& bank, Context& context, const std::shared_ptr<BankOptions>& o) {
  auto* command = bank.add_subcommand(
      "restore", "Copy a backup into an empty bank directory (offline, on this host)");
  command->add_option("backup", o->directory, "The backup's directory")->required();
  command
      ->add_option("bank", o->bank,
                   "The new bank's directory; the controller must not be running on it")
      ->required();
  command->callback([o, &context] {
    context.run = [o, &context] {
      // The controller owns the bank's format, so it does the work.
      const char* controller = std::getenv("MEMSLOT_CONTROLLER");
      const std::string program = controller == nullptr ? "memslot-controller" : controller;
      if (context.json) return restore_as_json(context.output(), program, *o);
      execlp(program.c_str(), program.c_str(), "--restore", o->directory.c_str(), "--bank",
             o->bank.c_str(), static_cast<char*>(nullptr));
      return context.output().fail(
          {ErrorCode::kNotFound, "program: cannot run " + program + " (set MEMSLOT_CONTROLLER)"});
    };
  });
}

}  // namespace

void add_bank(CLI::App& app, Context& context) {
  auto* bank = app.add_subcommand("bank", "Look into and manage the bank");
  bank->require_subcommand(1);
  bank->fallthrough();
  auto o = std::make_shared<BankOptions>();
  auto* ls = add_verb(*bank, context, o, "ls", "List memories", list);
  ls->add_option("prefix", o->prefix, "Only names that begin so");
  ls->add_option("--source", o->source, "Only memories of this source");
  ls->add_option("--limit", o->limit, "At most so many")->check(CLI::Range(1, 10000000));
  auto* show =
      add_verb(*bank, context, o, "show", "One memory: head, branches, use, source text",
               [](Client& c, const Output& out, const Context& x, const BankOptions& b) {
                 return print_reply(c, out, "bank.show", {{"memory", x.qualified(b.memory)}});
               });
  auto* versions = add_verb(*bank, context, o, "history", "All versions, oldest first", history);
  auto* rollback =
      add_verb(*bank, context, o, "rollback", "Publish an old version's bytes as the new head",
               [](Client& c, const Output& out, const Context& x, const BankOptions& b) {
                 return print_reply(c, out, "bank.rollback",
                                    {{"memory", x.qualified(b.memory)}, {"to", b.to}});
               });
  rollback->add_option("--to", o->to, "The version's number")->required();
  auto* rm = add_verb(*bank, context, o, "rm", "Erase a memory, its versions and its source text",
                      [](Client& c, const Output& out, const Context& x, const BankOptions& b) {
                        return print_reply(c, out, "bank.rm", {{"memory", x.qualified(b.memory)}});
                      });
  auto* out = add_verb(*bank, context, o, "export", "Write one memory to a file", export_memory);
  for (auto* command : {show, out})
    command->add_option("memory", o->memory, "ID, ID@VERSION, NS/ID or NS/ID@VERSION")->required();
  for (auto* command : {versions, rollback, rm})
    command->add_option("memory", o->memory, "ID or NS/ID")->required();
  out->add_option("file", o->file, "The file")->required();
  auto* in = add_verb(*bank, context, o, "import", "Read a memory from such a file", import_memory);
  in->add_option("file", o->file, "The file")->required();
  in->add_option("--id", o->id, "Under another name");
  add_verb(
      *bank, context, o, "verify", "Read every payload and check its digest",
      [](Client& c, const Output& w, const Context&, const BankOptions&) { return verify(c, w); });
  add_verb(*bank, context, o, "backup", "Copy the bank while it is in use",
           [](Client& c, const Output& w, const Context&, const BankOptions& b) {
             return backup(c, w, b);
           })
      ->add_option("directory", o->directory,
                   "An empty or absent directory on the controller's host; a relative path is "
                   "taken from here and sent whole")
      ->required();
  add_verb(*bank, context, o, "usage", "Bytes and counts",
           [](Client& c, const Output& w, const Context&, const BankOptions&) {
             return print_reply(c, w, "bank.usage", json::object());
           });
  add_restore(*bank, context, o);
}

}  // namespace memslot::cli
