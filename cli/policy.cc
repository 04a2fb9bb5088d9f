#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/fields.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct PolicyOptions {
  std::string file;
  std::uint64_t session = 0;
  double value = 0;
};

std::string short_name(const json& policy) { return policy.value("digest", "").substr(0, 12); }

Status load(Client& client, const Output& out, const PolicyOptions& o) {
  MEMSLOT_TRY(const std::string text, read_text_file(o.file));
  const auto bytes = std::as_bytes(std::span(text));
  MEMSLOT_TRY(const auto reply,
              client.ask("policy.load", json::object(), share_bytes({bytes.begin(), bytes.end()})));
  out.result(*reply.result);
  out.line("policy " + short_name((*reply.result)["policy"]) + " acts in sessions that begin now");
  return ok();
}

Status unload(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto reply, client.ask("policy.unload", json::object(), nullptr));
  out.result(*reply.result);
  out.line("no learned policy acts in sessions that begin now");
  return ok();
}

Status show(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto reply, client.ask("policy.show", json::object(), nullptr));
  out.result(*reply.result);
  if ((*reply.result)["policy"].is_null()) {
    out.line("no learned policy is loaded");
  } else {
    out.line(fields(*reply.result));
  }
  return ok();
}

Status list(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto reply, client.ask("policy.ls", json::object(), nullptr));
  out.result(*reply.result);
  for (const json& policy : (*reply.result)["policies"]) {
    const std::string line = std::to_string(policy.value("number", std::uint64_t{0})) + "  ";
    if (short_name(policy).empty()) {
      out.line(line + "none since");
      continue;
    }
    out.line(line + short_name(policy) + "  " + policy.value("origin", "") + "  update " +
             std::to_string(policy.value("update", std::uint64_t{0})));
  }
  return ok();
}

Status feedback(Client& client, const Output& out, const PolicyOptions& o) {
  const json arguments = {{"session", o.session}, {"value", o.value}};
  MEMSLOT_TRY(const auto reply, client.ask("policy.feedback", arguments, nullptr));
  out.result(*reply.result);
  out.line("feedback on " + std::to_string(reply.result->value("steps", 0)) + " steps is kept");
  return ok();
}

using Body = std::function<Status(Client&, const Output&)>;

void run_as(CLI::App* command, Context& context, Body body) {
  command->callback([&context, body = std::move(body)] {
    context.run = [&context, body] { return context.with_client(body); };
  });
}

}  // namespace

void add_policy(CLI::App& app, Context& context) {
  auto* policy =
      app.add_subcommand("policy", "The learned policy: load, unload, show, ls, feedback");
  policy->require_subcommand(1);
  policy->fallthrough();
  auto o = std::make_shared<PolicyOptions>();
  auto* loading = policy->add_subcommand("load", "Let a checkpoint act, without a restart");
  loading->add_option("file", o->file, "A checkpoint (memslot train)")->required();
  run_as(loading, context, [o](Client& c, const Output& out) { return load(c, out, *o); });
  run_as(policy->add_subcommand("unload", "Let none act, without a restart"), context, unload);
  run_as(policy->add_subcommand("show", "The one that acts, and how it is being learned"), context,
         show);
  run_as(policy->add_subcommand("ls", "Those of this bank, oldest first"), context, list);
  auto* judging = policy->add_subcommand("feedback", "Judge what a session wrote");
  judging->add_option("session", o->session, "Its number (start event of generate)")->required();
  judging->add_option("value", o->value, "From -1 (bad) to 1 (good)")->required();
  run_as(judging, context, [o](Client& c, const Output& out) { return feedback(c, out, *o); });
}

}  // namespace memslot::cli
