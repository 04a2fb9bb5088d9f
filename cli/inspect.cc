// score, tokenize, attest, status: what a generator can say about text and about itself.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/fields.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct TextOptions {
  std::string text, file, memory = "base", kv = "activated";
  std::vector<std::int32_t> ids;
  int step_tokens = 16;
};

// The text or the ids that a command was given, as task arguments.
Result<json> input_of(const TextOptions& o) {
  if (!o.ids.empty()) return json{{"ids", o.ids}};
  if (!o.file.empty()) {
    MEMSLOT_TRY(auto text, read_text_file(o.file));
    return json{{"text", std::move(text)}};
  }
  if (o.text.empty()) return invalid("text", "a text, --file or --ids", "nothing");
  return json{{"text", o.text}};
}

void add_input(CLI::App& command, TextOptions& o) {
  auto* text = command.add_option("text", o.text, "The text");
  auto* file =
      command.add_option("--file", o.file, "Read the text from a file (- : standard input)");
  auto* ids = command.add_option("--ids", o.ids, "Token ids instead of a text")->delimiter(',');
  text->excludes(file)->excludes(ids);
  file->excludes(ids);
}

Status score(Client& client, const Output& out, const Context& context, const TextOptions& o) {
  MEMSLOT_TRY(auto arguments, input_of(o));
  arguments.update({{"namespaces", {context.ns}},
                    {"memory", o.memory},
                    {"kv", o.kv},
                    {"step_tokens", o.step_tokens}});
  MEMSLOT_TRY(const auto scores,
              client.run("score", arguments, [&](const json& e) { out.event(e); }));
  out.result(*scores);
  for (const auto& token : (*scores)["tokens"]) {
    char line[160];
    const double logprob = token["logprob"].is_number() ? token["logprob"].get<double>() : 0;
    std::snprintf(line, sizeof line, "%8d  %9.4f %s  %s", token.value("id", 0), logprob,
                  token.value("rank1", false) ? "*" : " ",
                  token.value("text", json("")).dump().c_str());  // none without a tokenizer
    out.line(line);
  }
  char summary[160];
  std::snprintf(summary, sizeof summary, "nll %.5f nats a token, recall %s %%, memory %s",
                scores->value("nll", 0.0), figure(*scores, "recall", "%.1f", 100).c_str(),
                scores->value("memory", "base").c_str());
  out.line(summary);
  return ok();
}

Status tokenize(Client& client, const Output& out, const TextOptions& o) {
  MEMSLOT_TRY(const auto arguments, input_of(o));
  MEMSLOT_TRY(const auto tokens, client.run("tokenize", arguments, [](const json&) {}));
  out.result(*tokens);
  std::string line;
  for (const auto& id : (*tokens)["ids"]) line += (line.empty() ? "" : " ") + id.dump();
  out.line(o.ids.empty() ? line : tokens->value("text", ""));
  return ok();
}

Status attest(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto report, client.run("attest", json::object(), [](const json&) {}));
  out.result(*report);
  out.line(fields(*report));
  if (!report->value("equal", false)) {
    return Error{ErrorCode::kCorruption, "base tensors: expected " + report->value("at_load", "") +
                                             ", found " + report->value("digest", "")};
  }
  return ok();
}

Status status(Client& client, const Output& out) {
  MEMSLOT_TRY(const auto peers, client.ask("peers.ls", json::object(), nullptr));
  json report = *peers.result;
  auto generator = client.run("status", json::object(), [](const json&) {});
  report["generator"] = generator ? *generator.value() : json{{"error", generator.error().message}};
  out.result(report);
  out.line(fields(report));
  if (!generator) return generator.error();
  return ok();
}

}  // namespace

void add_score(CLI::App& app, Context& context) {
  auto* command =
      app.add_subcommand("score", "Log-probability of every token of a text, with any memory");
  auto o = std::make_shared<TextOptions>();
  add_input(*command, *o);
  command->add_option("--memory,-m", o->memory, "base, auto, ID or ID@VERSION, of --namespace")
      ->capture_default_str();
  command->add_option("--kv", o->kv, "What a swap means for the past (with auto)")
      ->check(CLI::IsMember({"activated", "recompute"}))
      ->capture_default_str();
  command->add_option("--step-tokens", o->step_tokens, "Tokens between choices (with auto)")
      ->check(CLI::Range(1, 512));
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& c, const Output& out) { return score(c, out, context, *o); });
    };
  });
}

void add_tokenize(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("tokenize", "Token ids of a text, or the text of token ids");
  auto o = std::make_shared<TextOptions>();
  add_input(*command, *o);
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& c, const Output& out) { return tokenize(c, out, *o); });
    };
  });
}

void add_attest(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand(
      "attest", "Digest over all base tensors, now and when the model was loaded");
  command->callback(
      [&context] { context.run = [&context] { return context.with_client(attest); }; });
}

void add_status(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("status", "Generators, sessions, and one generator's memory");
  command->callback(
      [&context] { context.run = [&context] { return context.with_client(status); }; });
}

}  // namespace memslot::cli
