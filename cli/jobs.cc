#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/fields.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct JobOptions {
  std::string job, state;
};

Status list(Client& client, const Output& out, const JobOptions& o) {
  json arguments = json::object();
  if (!o.state.empty()) arguments["state"] = o.state;
  MEMSLOT_TRY(const auto reply, client.ask("jobs.ls", arguments, nullptr));
  out.result(*reply.result);
  for (const auto& job : (*reply.result)["jobs"]) {
    const std::string waits = job.value("waits", "");
    out.line(job.value("job", "") + "  " + job.value("state", "") + "  " + job.value("source", "") +
             "  " + (waits.empty() ? job.value("message", "") : "waits: " + waits));
  }
  if (const auto more = reply.result->value("left_off", 0); more > 0) {
    out.line("and " + std::to_string(more) + " older ones (--state narrows the list)");
  }
  return ok();
}

Status about(Client& client, const Output& out, const char* verb, const JobOptions& o) {
  MEMSLOT_TRY(const auto reply, client.ask(verb, {{"job", o.job}}, nullptr));
  out.result(*reply.result);
  out.line(fields(*reply.result));
  return ok();
}

}  // namespace

void add_jobs(CLI::App& app, Context& context) {
  auto* jobs = app.add_subcommand("jobs", "Learn jobs: list, show, cancel");
  jobs->require_subcommand(1);
  jobs->fallthrough();
  auto o = std::make_shared<JobOptions>();
  auto* ls = jobs->add_subcommand("ls", "List jobs");
  ls->add_option("--state", o->state, "Only these")
      ->check(CLI::IsMember({"queued", "leased", "done", "failed", "cancelled"}));
  ls->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client([&](Client& c, const Output& out) { return list(c, out, *o); });
    };
  });
  for (const auto& [name, verb, help] : {std::tuple{"show", "jobs.show", "One job"},
                                         std::tuple{"cancel", "jobs.cancel", "Stop a job"}}) {
    auto* command = jobs->add_subcommand(name, help);
    command->add_option("job", o->job, "The job's id")->required();
    command->callback([o, &context, verb = verb] {
      context.run = [o, &context, verb] {
        return context.with_client(
            [&](Client& c, const Output& out) { return about(c, out, verb, *o); });
      };
    });
  }
}

}  // namespace memslot::cli
