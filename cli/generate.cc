#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

struct GenerateOptions {
  std::string prompt, prompt_file;
  std::string memory = "auto", policy, kv = "activated", select = "sync";
  int max_tokens = 128, step_tokens = 16, top_k = 0, slot = 0, deadline_ms = 1000;
  double temperature = 0, top_p = 1;
  std::uint64_t seed = 1;
  std::vector<std::string> stop;
  bool explore = false, write_back = false, show_steps = false, no_trace = false;
};

json arguments_of(const GenerateOptions& o, const Context& context, const std::string& prompt) {
  return {{"prompt", prompt},
          {"namespaces", {context.ns}},
          {"memory", o.memory},
          {"slot", o.slot},
          {"policy", o.policy},
          {"kv", o.kv},
          {"select", o.select},
          {"max_tokens", o.max_tokens},
          {"step_tokens", o.step_tokens},
          {"temperature", o.temperature},
          {"top_k", o.top_k},
          {"top_p", o.top_p},
          {"seed", o.seed},
          {"stop", o.stop},
          {"explore", o.explore},
          {"deadline_ms", o.deadline_ms},
          {"write_back", o.write_back},
          {"trace", !o.no_trace}};
}

// One line per step: which memory wrote it, and what it wrote.
std::string step_line(const Output& out, const json& step) {
  const std::string memory = step.value("memory", "base");
  std::string name = memory;
  name.resize(std::max<std::size_t>(name.size(), 36), ' ');
  std::string text = step.value("text", "");
  for (auto& c : text) c = c == '\n' ? ' ' : c;
  return out.coloured(memory, name) + out.dim(" | ") + out.coloured(memory, text);
}

void show_event(const Output& out, const GenerateOptions& options, const json& event) {
  out.event(event);
  if (out.json() || event.value("type", "") != "step") return;
  if (options.show_steps) {
    out.line(step_line(out, event));
  } else if (out.stream()) {
    out.text(out.coloured(event.value("memory", "base"), event.value("text", "")));
  }
}

// For who watches: whose colour is whose, and where the record is.
void show_legend(const Output& out, const std::vector<json>& steps, const json& done) {
  if (!out.progress()) return;
  std::vector<std::string> memories;
  for (const json& step : steps) {
    const std::string memory = step.value("memory", "base");
    if (std::ranges::find(memories, memory) == memories.end()) memories.push_back(memory);
  }
  std::string line;
  for (const std::string& memory : memories) {
    line += (line.empty() ? "written by " : ", ") + out.coloured(memory, memory);
  }
  if (const std::string trace = done.value("trace", ""); !trace.empty()) {
    line += (line.empty() ? "trace " : "; trace ") + trace;
  }
  if (!line.empty()) out.note(line);
}

Status generate(Client& client, const Output& out, const Context& context,
                const GenerateOptions& options) {
  std::string prompt = options.prompt;
  if (!options.prompt_file.empty()) {
    MEMSLOT_TRY(prompt, read_text_file(options.prompt_file));
  }
  std::vector<json> steps;
  if (out.stream() && !options.show_steps) out.text(out.bold(prompt));
  MEMSLOT_TRY(auto done, client.run("generate", arguments_of(options, context, prompt),
                                    [&](const json& event) {
                                      show_event(out, options, event);
                                      if (event.value("type", "") == "step") steps.push_back(event);
                                    }));
  if (out.json()) {
    if (!out.stream()) (*done)["steps"] = steps;
    out.result(*done);
  } else if (out.stream() && !options.show_steps) {
    out.line("");
  } else if (!options.show_steps) {
    std::string text = out.bold(prompt);
    for (const auto& step : steps) {
      text += out.coloured(step.value("memory", "base"), step.value("text", ""));
    }
    out.line(text);
  }
  show_legend(out, steps, *done);
  if (done->value("finish", "") == "context") out.note("the model's context is full");
  return ok();
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
  auto* command =
      app.add_subcommand("generate", "Continue a prompt; every stretch is coloured by its memory");
  auto o = std::make_shared<GenerateOptions>();
  auto* prompt = command->add_option("prompt", o->prompt, "The text to continue");
  command
      ->add_option("--prompt-file", o->prompt_file,
                   "Read the prompt from a file (- : standard input)")
      ->excludes(prompt);
  command->add_option("--memory,-m", o->memory, "auto, base, ID or ID@VERSION, of --namespace")
      ->capture_default_str();
  command->add_option("--policy", o->policy,
                      "base, random, nearest, fixed:ID, learned or auto; empty: the controller's");
  command->add_option("--kv", o->kv, "What a swap means for the past")
      ->check(CLI::IsMember({"activated", "recompute"}))
      ->capture_default_str();
  command->add_option("--select", o->select, "Wait for each choice, or apply it one step later")
      ->check(CLI::IsMember({"sync", "async"}))
      ->capture_default_str();
  command
      ->add_option("--max-tokens", o->max_tokens,
                   "Length; the text also ends where the model's context is full")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--step-tokens", o->step_tokens, "Tokens between choices")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  command->add_option("--temperature", o->temperature, "0: greedy")->capture_default_str();
  command->add_option("--top-k", o->top_k, "0: all")->capture_default_str();
  command->add_option("--top-p", o->top_p, "1: all")->capture_default_str();
  command->add_option("--seed", o->seed, "Of the sampler and of the policy")->capture_default_str();
  command->add_option("--stop", o->stop, "End at this text; may be repeated");
  command->add_option("--slot", o->slot, "Which slot --memory names")->capture_default_str();
  command
      ->add_option("--deadline-ms", o->deadline_ms, "Wait for a choice at most so long, then keep")
      ->capture_default_str();
  command->add_flag("--explore", o->explore, "Sample the choice instead of taking the best");
  command->add_flag("--write-back", o->write_back,
                    "Store a stateful memory's new state at the end");
  command->add_flag("--no-trace", o->no_trace, "Keep no record of this generation");
  command->add_flag("--show-steps", o->show_steps,
                    "One line per step with the memory that wrote it");
  command->callback([o, &context] {
    context.run = [o, &context] {
      return context.with_client(
          [&](Client& client, const Output& out) { return generate(client, out, context, *o); });
    };
  });
}

}  // namespace memslot::cli
