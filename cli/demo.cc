// The main job, shown: update memory, recover memory, and a memory chosen at each step.
#include <spdlog/fmt/fmt.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "shared/memory/record.h"

namespace memslot::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct DemoOptions {
  std::string samples, kind = "mlp";
  int max_tokens = 48;
};

struct Sample {
  std::string source;  // its name in the bank
  std::string memory;  // the memory's id
  std::string text;
  std::string prompt;
};

Result<json> read_json(const std::string& path) {
  MEMSLOT_TRY(const auto text, read_text_file(path));
  auto parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return corrupt(path, "a JSON object", text.substr(0, 40));
  return parsed;
}

Result<std::vector<Sample>> read_samples(const DemoOptions& o) {
  std::vector<std::string> stems;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(o.samples + "/sources", failure)) {
    if (entry.path().extension() == ".txt") stems.push_back(entry.path().stem().string());
  }
  if (stems.empty())
    return Error{ErrorCode::kNotFound,
                 "samples: expected sources/*.txt in " + o.samples + ", found none"};
  std::sort(stems.begin(), stems.end());
  std::vector<Sample> samples;
  for (const auto& stem : stems) {
    Sample sample;
    sample.source = slug(stem);
    sample.memory = sample.source + "-" + o.kind;
    MEMSLOT_TRY(sample.text, read_text_file(o.samples + "/sources/" + stem + ".txt"));
    MEMSLOT_TRY(const auto about, read_json(o.samples + "/sources/" + stem + ".json"));
    if (!about.contains("cloze") || about["cloze"].empty())
      return corrupt(stem + ".json", "cloze prompts", "none");
    sample.prompt = about["cloze"][0].value("prompt", "");
    samples.push_back(std::move(sample));
  }
  return samples;
}

// True if the bank has the sample's memory for the model that runs now.
bool is_learned(Client& client, const Context& context, const Sample& sample,
                const std::string& model) {
  const auto shown =
      client.ask("bank.show", {{"memory", context.ns + "/" + sample.memory}}, nullptr);
  if (!shown) return false;
  const json version = shown.value().result->value("version", json::object());
  return version.value("signature", json::object()).value("model", "") == model;
}

Status learn_sample(Client& client, const Output& out, const Context& context, const DemoOptions& o,
                    const Sample& sample) {
  const json arguments = {{"text", sample.text},          {"source", sample.source},
                          {"namespace", context.ns},      {"id", sample.memory},
                          {"config", {{"kind", o.kind}}}, {"watch", true}};
  const auto learned = client.run("learn", arguments, [&](const json& event) {
    if (event.value("type", "") != "progress") return;
    out.status(fmt::format("learning {}: {} step {}, recall {:.0f} %", sample.source,
                           event.value("phase", ""), event.value("step", 0),
                           100 * event.value("recall", 0.0)));
  });
  if (!learned) return learned.error().with_context("learning " + sample.source);
  out.clear_status();
  const json stats = learned.value()->value("stats", json::object());
  out.line(fmt::format(
      "learned {:<20} recall {:>5} % (base {:>4} %), control text {} %, {} s", sample.source,
      figure(stats, "recall", "%.1f", 100), figure(stats, "recall_before", "%.1f", 100),
      figure(stats, "locality", "%+.1f", 100), figure(stats, "wall_seconds", "%.1f")));
  return ok();
}

Result<std::shared_ptr<json>> generate(Client& client, const Context& context, const DemoOptions& o,
                                       const std::string& prompt, const std::string& memory) {
  return client.run("generate",
                    {{"prompt", prompt},
                     {"memory", memory},
                     {"namespaces", {context.ns}},
                     {"max_tokens", o.max_tokens}},
                    [](const json&) {});
}

std::string one_line(std::string text) {
  for (auto& c : text) c = c == '\n' ? ' ' : c;
  return text;
}

// Base, with the memory, and base again; false if the last differs from the first in any bit.
Result<bool> show_update_and_recover(Client& client, const Output& out, const Context& context,
                                     const DemoOptions& o, const Sample& sample, json& report) {
  const std::string memory = context.ns + "/" + sample.memory;
  MEMSLOT_TRY(const auto before, generate(client, context, o, sample.prompt, "base"));
  MEMSLOT_TRY(const auto with, generate(client, context, o, sample.prompt, memory));
  MEMSLOT_TRY(const auto after, generate(client, context, o, sample.prompt, "base"));
  const bool same = (*before)["tokens"] == (*after)["tokens"] &&
                    (*before)["logits_xxh3"] == (*after)["logits_xxh3"];
  out.line("");
  out.line(out.bold(sample.prompt));
  out.line("  base       " + one_line(before->value("text", "")));
  out.line("  update     " + out.coloured(memory, one_line(with->value("text", ""))) +
           out.dim("  [" + memory + "]"));
  out.line("  recover    " + one_line(after->value("text", "")));
  out.line(out.dim(std::string("             ") +
                   (same ? "bit-identical to base" : "DIFFERS FROM BASE") + " (logits " +
                   after->value("logits_xxh3", "?") + ")"));
  report.push_back({{"source", sample.source},
                    {"prompt", sample.prompt},
                    {"base", *before},
                    {"with_memory", *with},
                    {"recovered", *after},
                    {"bit_identical", same}});
  return same;
}

Status show_wandering(Client& client, const Output& out, const Context& context,
                      const DemoOptions& o, json& report) {
  MEMSLOT_TRY(const auto wander, read_json(o.samples + "/wander.json"));
  std::string text;
  for (const auto& passage : wander.value("passages", json::array())) {
    text += (text.empty() ? "" : "\n\n") + passage.value("text", "");
  }
  out.line("");
  out.line(out.bold("One passage through several sources; the memory is chosen at each step"));
  report = json::array();
  const auto scores = client.run(
      "score",
      {{"text", text}, {"memory", "auto"}, {"policy", "nearest"}, {"namespaces", {context.ns}}},
      [&](const json& event) {
        if (event.value("type", "") != "step") return;
        std::string memory = event.value("memory", "base"), shown = memory;
        shown.resize(std::max<std::size_t>(shown.size(), 34), ' ');
        out.line("  " + out.coloured(memory, shown) + out.dim(" | ") +
                 out.coloured(memory, one_line(event.value("text", ""))));
        report.push_back(event);
      });
  return scores ? ok() : Status(scores.error());
}

Status demo(Client& client, const Output& out, const Context& context, const DemoOptions& o) {
  MEMSLOT_TRY(const auto samples, read_samples(o));
  MEMSLOT_TRY(const auto loaded, client.run("attest", json::object(), [](const json&) {}));
  for (const auto& sample : samples) {
    if (is_learned(client, context, sample, loaded->value("model", ""))) continue;
    MEMSLOT_TRY(learn_sample(client, out, context, o, sample));
  }
  json report = {{"sources", json::array()}};
  bool recovered = true;
  for (const auto& sample : samples) {
    MEMSLOT_TRY(const bool same,
                show_update_and_recover(client, out, context, o, sample, report["sources"]));
    recovered = recovered && same;
  }
  MEMSLOT_TRY(show_wandering(client, out, context, o, report["wander"]));
  MEMSLOT_TRY(const auto attest, client.run("attest", json::object(), [](const json&) {}));
  report["attest"] = *attest;
  out.line("");
  out.line("base tensors " + attest->value("digest", "").substr(0, 16) + "... " +
           (attest->value("equal", false) ? "unchanged since the model was loaded" : "CHANGED"));
  out.result(report);
  if (!recovered)
    return Error{ErrorCode::kInternal, "recover memory: expected base's bits, found others"};
  if (!attest->value("equal", false))
    return Error{ErrorCode::kInternal, "attest: base tensors changed"};
  return ok();
}

}  // namespace

void add_demo(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand(
      "demo", "The main job on the sample sources: learn, update, recover, choose");
  auto o = std::make_shared<DemoOptions>();
  command->add_option("samples", o->samples, "The folder samples/ of the project")->required();
  command->add_option("--kind", o->kind, "mlp or lora")
      ->check(CLI::IsMember({"mlp", "lora"}))
      ->capture_default_str();
  command->add_option("--max-tokens", o->max_tokens, "Length of each text")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& c, const Output& out) { return demo(c, out, context, *o); });
    };
  });
}

}  // namespace memslot::cli
