#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/fields.h"
#include "shared/base/utf8.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

constexpr int kPage = 128;  // steps asked for at once

struct TraceOptions {
  std::string trace, other, file;
  std::string memory, source, policy, since, until;
  std::string what_if;
  int limit = 20;
  bool candidates = false;
};

// "2026-11-23", "2026-11-23T12:30", both UTC, or milliseconds.
Result<std::int64_t> unix_ms_of(const std::string& name, const std::string& text) {
  for (const char* format : {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"}) {
    std::tm parts{};
    const char* const end = ::strptime(text.c_str(), format, &parts);
    if (end != nullptr && *end == '\0') return std::int64_t{::timegm(&parts)} * 1000;
  }
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '\0' || value < 0) {
    return invalid(name, "a time (2026-11-23, 2026-11-23T12:30) or milliseconds", text);
  }
  return value;
}

std::string one_line(std::string text, std::size_t most) {
  std::ranges::replace(text, '\n', ' ');
  return text.size() <= most ? text : head_of(text, most) + "...";
}

Status list(Client& client, const Output& out, const Context& context, const TraceOptions& o) {
  json arguments = {{"limit", o.limit}};
  if (!o.memory.empty()) arguments["memory"] = context.qualified(o.memory);
  if (!o.source.empty()) arguments["source"] = o.source;
  if (!o.policy.empty()) arguments["policy"] = o.policy;
  if (!o.since.empty()) {
    MEMSLOT_TRY(arguments["since_unix_ms"], unix_ms_of("--since", o.since));
  }
  if (!o.until.empty()) {
    MEMSLOT_TRY(arguments["until_unix_ms"], unix_ms_of("--until", o.until));
  }
  MEMSLOT_TRY(const auto reply, client.ask("trace.ls", arguments, nullptr));
  out.result(*reply.result);
  for (const json& one : (*reply.result)["traces"]) {
    std::string memories;
    for (const json& memory : one["memories"]) {
      if (!memories.empty()) memories += ' ';
      memories += memory.get<std::string>();
    }
    out.line(one.value("trace", "") + "  " +
             time_text(one.value("created_unix_ms", std::int64_t{0})) + "  " +
             std::to_string(one.value("tokens", 0)) + " tokens  " +
             (memories.empty() ? "base" : memories) + "  " +
             out.dim(one_line(one.value("prompt", ""), 48)));
  }
  return ok();
}

// All of a trace: as many pages as it has.
Result<json> whole_trace(Client& client, const std::string& id, bool candidates) {
  json out;
  std::uint64_t from = 0;
  for (;;) {
    const json arguments = {
        {"trace", id}, {"from", from}, {"steps", kPage}, {"candidates", candidates}};
    MEMSLOT_TRY(auto reply, client.ask("trace.show", arguments, nullptr));
    json& page = *reply.result;
    if (out.is_null()) {
      out = page;
    } else {
      for (json& step : page["shown"]) out["shown"].push_back(std::move(step));
    }
    if (page["next"].is_null()) break;
    from = page["next"].get<std::uint64_t>();
  }
  out.erase("next");
  return out;
}

std::string memory_of(const json& step) {
  return step["active"].empty() ? "base" : step["active"][0].value("memory", "base");
}

void show_step(const Output& out, const json& step, bool candidates) {
  const std::string memory = memory_of(step);
  std::string name = memory;
  name.resize(std::max<std::size_t>(name.size(), 32), ' ');
  char figures[96];
  std::snprintf(figures, sizeof figures, "%4d  entropy %5.2f  surprise %5.2f  ",
                step.value("step", 0), step.value("entropy", 0.0), step.value("surprise", 0.0));
  out.line(out.dim(figures) + out.coloured(memory, name) + out.dim(" | ") +
           out.coloured(memory, one_line(step.value("text", ""), 400)));
  if (!candidates || !step.contains("decisions")) return;
  for (const json& decision : step["decisions"]) {
    for (const json& c : decision.value("candidates", json::array())) {
      char row[128];
      std::snprintf(row, sizeof row, "        %s score %8.4f  key %6.3f  mean %6.3f  ",
                    c.value("memory", "") == decision.value("chosen", "") ? "->" : "  ",
                    c.value("score", 0.0), c.value("best_key", 0.0), c.value("mean_key", 0.0));
      out.line(out.dim(row) + c.value("memory", ""));
    }
  }
}

Status show(Client& client, const Output& out, const TraceOptions& o) {
  MEMSLOT_TRY(const json trace, whole_trace(client, o.trace, o.candidates || out.json()));
  out.result(trace);
  out.line(
      trace.value("trace", "") + "  " + time_text(trace.value("created_unix_ms", std::int64_t{0})) +
      "  policy " +
      (trace.value("policy", "").empty() ? "none (the user chose)" : trace.value("policy", "")));
  out.line(out.dim("request " + trace["request"].dump()));
  out.line(out.dim("build   " + trace["build"].dump()));
  out.line(out.bold(trace.value("prompt", "")));
  for (const json& step : trace["shown"]) show_step(out, step, o.candidates);
  for (const json& fault : trace["faults"]) {
    out.note("step " + std::to_string(fault.value("step", 0)) + ": " + fault.value("text", ""));
  }
  for (const json& stored : trace["write_backs"]) {
    out.line("wrote back " + stored.value("from", "") + " as " + stored.value("stored", "nothing"));
  }
  if (trace.contains("damage")) out.note("damaged: " + trace.value("damage", ""));
  if (!trace.value("ended", false)) out.note("it has no end: under way, or its generator died");
  if (!trace.value("error", "").empty()) out.note("it failed: " + trace.value("error", ""));
  return ok();
}

Result<json> what_if_of(const std::string& text) {
  json out;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const std::size_t equals = part.find('=');
    const std::string name(part.substr(0, equals));
    const std::string value(equals == std::string_view::npos ? "" : part.substr(equals + 1));
    if (name == "memory") {
      out["memory"] = value;
    } else if (name == "step" || name == "slot") {
      char* end = nullptr;
      out[name] = std::strtoull(value.c_str(), &end, 10);
      if (value.empty() || *end != '\0') return invalid("--what-if " + name, "a number", value);
    } else {
      return invalid("--what-if", "step=N,memory=ID or base", text);
    }
  }
  if (!out.contains("step") || !out.contains("memory")) {
    return invalid("--what-if", "step=N,memory=ID or base", text);
  }
  return out;
}

std::string differences_text(const json& result) {
  std::string out;
  for (const json& one : result.value("differences", json::array())) {
    out += (out.empty() ? "" : ", ") + one.value("name", "") + " " + one["then"].dump() +
           " then, " + one["now"].dump() + " now";
  }
  return out;
}

std::string divergence_text(const json& result) {
  const json& at = result["divergence"];
  std::string out = "step " + std::to_string(at.value("step", 0)) + ": other " +
                    at.value("what", std::string("tokens"));
  if (at.contains("token")) out += " from token " + std::to_string(at.value("token", 0)) + " on";
  const std::string why = differences_text(result);
  return out + (why.empty() ? "; build, machine and settings are the same" : "; " + why);
}

void show_what_if(const Output& out, const json& done) {
  const auto nats = [](const json& side, const char* name) {
    return figure(side, name, "%.3f nats");
  };
  out.line("at step " + std::to_string(done.value("step", 0)) + ": " + done.value("memory", "") +
           " instead of " + done.value("instead_of", ""));
  const json& original = done["original"];
  out.line(out.bold("as recorded"));
  out.line(original.value("text", ""));
  out.line(out.dim("log-probability " + nats(original, "log_prob") + ", with the change " +
                   nats(original, "log_prob_with_change")));
  if (original.contains("gain")) {
    out.line("gain of the change: " + figure(original, "gain", "%.4f nats per token"));
  }
  if (!done.contains("what_if")) return;
  out.line(out.bold("with the change"));
  out.line(done["what_if"].value("text", ""));
  out.line(out.dim("log-probability " + nats(done["what_if"], "log_prob") + ", as recorded " +
                   nats(done["what_if"], "log_prob_as_recorded")));
}

// The controller's half: its decisions, made again from what the trace says of them.
Result<json> check(Client& client, const TraceOptions& o) {
  MEMSLOT_TRY(const auto reply, client.ask("trace.check", {{"trace", o.trace}}, nullptr));
  return *reply.result;
}

// A rule's spec, or a learned policy of the bank; any other name is that of a checkpoint's file.
bool is_spec(std::string_view policy) {
  constexpr std::array<std::string_view, 5> kNames = {"base", "random", "nearest", "fixed",
                                                      "learned"};
  return std::ranges::find(kNames, policy.substr(0, policy.find(':'))) != kNames.end();
}

// What another policy had chosen on the recorded text.
Result<json> other_choices(Client& client, const TraceOptions& o) {
  json arguments = {{"trace", o.trace}};
  SharedBytes file;
  if (is_spec(o.policy)) {
    arguments["policy"] = o.policy;
  } else {
    MEMSLOT_TRY(const std::string text, read_text_file(o.policy));
    const auto bytes = std::as_bytes(std::span(text));
    file = share_bytes({bytes.begin(), bytes.end()});
  }
  MEMSLOT_TRY(const auto reply, client.ask("trace.choices", arguments, std::move(file)));
  return *reply.result;
}

Result<json> run_replay(Client& client, const Output& out, const json& arguments) {
  MEMSLOT_TRY(const auto done, client.run("replay", arguments, [&](const json& event) {
    out.event(event);
    if (out.json() || !out.stream() || event.value("type", "") != "step") return;
    out.text(out.coloured(event.value("memory", "base"), event.value("text", "")));
  }));
  if (out.stream()) out.line("");
  return *done;
}

Status replay_otherwise(Client& client, const Output& out, const TraceOptions& o) {
  MEMSLOT_TRY(json other, other_choices(client, o));
  const auto count = [&](const char* name) { return std::to_string(other.value(name, 0)); };
  const std::string policy = other.value("policy", "");
  for (const json& note : other["notes"]) out.note(note.get<std::string>());
  if (other["choices"].empty()) {
    other["identical"] = true;
    out.result(other);
    out.line("identical: " + policy + " decides otherwise at " + count("otherwise") + " of " +
             count("decisions") + " decisions, and no step has another memory");
    return ok();
  }
  const json arguments = {{"trace", o.trace}, {"what_if", {{"choices", other["choices"]}}}};
  MEMSLOT_TRY(json done, run_replay(client, out, arguments));
  std::set<std::uint64_t> steps;
  for (const json& choice : other["choices"]) steps.insert(choice.value("step", std::uint64_t{0}));
  out.line(policy + " decides otherwise at " + count("otherwise") + " of " + count("decisions") +
           " decisions; steps with another memory: " + std::to_string(steps.size()));
  if (!done["divergence"].is_null()) out.line("diverged at " + divergence_text(done));
  show_what_if(out, done);
  other["identical"] = false;
  done.update(other);
  out.result(done);
  return ok();
}

Status replay(Client& client, const Output& out, const TraceOptions& o) {
  if (!o.policy.empty()) return replay_otherwise(client, out, o);
  json arguments = {{"trace", o.trace}};
  if (!o.what_if.empty()) {
    MEMSLOT_TRY(arguments["what_if"], what_if_of(o.what_if));
  }
  MEMSLOT_TRY(json done, run_replay(client, out, arguments));
  if (!o.what_if.empty() || !done["divergence"].is_null()) out.result(done);
  if (!done["divergence"].is_null()) {
    out.line("diverged at " + divergence_text(done));
    if (o.what_if.empty()) {
      return Error{ErrorCode::kMismatch, "trace " + o.trace + ": diverged"};
    }
  }
  if (!o.what_if.empty()) {
    show_what_if(out, done);
    return ok();
  }
  MEMSLOT_TRY(const json checked, check(client, o));
  done["decisions"] = checked;
  out.result(done);
  if (!checked["others"].empty()) {
    const json& first = checked["others"][0];
    out.line("decided otherwise at step " + std::to_string(first.value("step", 0)) + ": " +
             first.value("what", ""));
    return Error{ErrorCode::kMismatch, "trace " + o.trace + ": decided otherwise"};
  }
  out.line("decisions: " + std::to_string(checked.value("checked", 0)) + " of " +
           std::to_string(checked.value("decisions", 0)) + " made again, bit for bit");
  for (const json& why : checked["unchecked"])
    out.note("not made again: " + why.get<std::string>());
  out.line("identical: " + std::to_string(done.value("steps", 0)) + " steps, " +
           std::to_string(done.value("tokens", 0)) + " tokens, every bit of the logits");
  return ok();
}

// What differs first between two steps of the same number; "" for nothing.
std::string step_difference(const json& a, const json& b) {
  if (memory_of(a) != memory_of(b)) return "memory: " + memory_of(a) + " | " + memory_of(b);
  if (a["tokens"] != b["tokens"]) {
    return "tokens: " + one_line(a.value("text", ""), 60) + " | " +
           one_line(b.value("text", ""), 60);
  }
  if (a["logits_xxh3"] != b["logits_xxh3"]) return "logits";
  return "";
}

Status diff(Client& client, const Output& out, const TraceOptions& o) {
  MEMSLOT_TRY(const json a, whole_trace(client, o.trace, false));
  MEMSLOT_TRY(const json b, whole_trace(client, o.other, false));
  json found = json::array();
  for (const char* name : {"build", "request", "prompt", "policy", "opening"}) {
    if (a[name] == b[name]) continue;
    found.push_back({{"what", name}, {"a", a[name]}, {"b", b[name]}});
    out.line(std::string(name) + ": " + one_line(a[name].dump(), 200) + " | " +
             one_line(b[name].dump(), 200));
  }
  const std::size_t steps = std::max(a["shown"].size(), b["shown"].size());
  for (std::size_t i = 0; i < steps; ++i) {
    const bool both = i < a["shown"].size() && i < b["shown"].size();
    const std::string what =
        both ? step_difference(a["shown"][i], b["shown"][i]) : std::string("only in one of them");
    if (what.empty()) continue;
    found.push_back({{"what", "step"}, {"step", i}, {"difference", what}});
    out.line("step " + std::to_string(i) + ": " + what);
  }
  out.result({{"a", o.trace}, {"b", o.other}, {"differences", found}});
  if (found.empty()) out.line("no difference");
  return ok();
}

Status remove(Client& client, const Output& out, const TraceOptions& o) {
  MEMSLOT_TRY(const auto reply, client.ask("trace.rm", {{"trace", o.trace}}, nullptr));
  out.result(*reply.result);
  out.line("removed " + o.trace);
  return ok();
}

Status save(Client& client, const Output& out, const TraceOptions& o) {
  MEMSLOT_TRY(const auto reply, client.ask("trace.export", {{"trace", o.trace}}, nullptr));
  MEMSLOT_TRY(save_file(out, o.file, reply.part));
  out.result(*reply.result);
  return ok();
}

using Body = std::function<Status(Client&, const Output&, const TraceOptions&)>;

CLI::App* add(CLI::App* parent, Context& context, const char* name, const char* help,
              const std::shared_ptr<TraceOptions>& o, const Body& body) {
  auto* command = parent->add_subcommand(name, help);
  command->callback([o, &context, body] {
    context.run = [o, &context, body] {
      return context.with_client(
          [&](Client& client, const Output& out) { return body(client, out, *o); });
    };
  });
  return command;
}

}  // namespace

void add_trace(CLI::App& app, Context& context) {
  auto* trace = app.add_subcommand(
      "trace", "The record of every generation: ls, show, replay, diff, export, rm");
  trace->require_subcommand(1);
  trace->fallthrough();
  auto o = std::make_shared<TraceOptions>();
  auto* listing = add(trace, context, "ls", "Traces, newest first", o,
                      [&context](Client& c, const Output& out, const TraceOptions& t) {
                        return list(c, out, context, t);
                      });
  listing->add_option("--memory", o->memory,
                      "In which this memory was active (of any namespace: NS/ID)");
  listing->add_option("--source", o->source, "In which a memory of this source was active");
  listing->add_option("--policy", o->policy, "Chosen by this policy (its name's beginning)");
  listing->add_option("--since", o->since,
                      "From this time on: 2026-11-23 or 2026-11-23T12:30, UTC");
  listing->add_option("--until", o->until, "Before this time");
  listing->add_option("--limit", o->limit, "At most so many")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  const auto named = [&](CLI::App* command) {
    command->add_option("trace", o->trace, "Its id (trace ls; the start event of generate)")
        ->required();
    return command;
  };
  named(add(trace, context, "show", "One trace, step by step", o, show))
      ->add_flag("--candidates", o->candidates, "With all candidates of each decision");
  auto* again = named(
      add(trace, context, "replay",
          "Compute it again and compare every bit; or ask what other choices had made", o, replay));
  auto* what_if = again->add_option("--what-if", o->what_if,
                                    "step=N,memory=ID or base: another choice at one step");
  again
      ->add_option("--policy", o->policy,
                   "What this policy had chosen: base, random, nearest[:THRESHOLD], fixed:NS/ID, "
                   "learned[:DIGEST], or a checkpoint's file")
      ->excludes(what_if);
  named(add(trace, context, "diff", "What differs between two traces", o, diff))
      ->add_option("other", o->other, "The other one's id")
      ->required();
  named(add(trace, context, "export", "Save its file", o, save))
      ->add_option("file", o->file, "Where to")
      ->required();
  named(add(trace, context, "rm", "Forget it", o, remove));
}

}  // namespace memslot::cli
