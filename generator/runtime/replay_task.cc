#include "generator/runtime/replay_task.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "generator/runtime/argument_reader.h"
#include "generator/runtime/session_run.h"
#include "generator/runtime/task_events.h"
#include "generator/runtime/tasks.h"
#include "generator/runtime/trace_recorder.h"
#include "shared/wire/limits.h"  // kMaxSlots

namespace memslot {
namespace {

using nlohmann::json;

// --- arguments -----------------------------------------------------------------------------------

Result<MemoryChoice> recorded_memory(const json& name) {
  if (!name.is_string()) return invalid("argument steps", "names of memories", name.type_name());
  const auto text = name.get<std::string>();
  if (text == "base") return MemoryChoice{};
  MEMSLOT_TRY(MemoryRef ref, MemoryRef::parse(text));
  return MemoryChoice{MemoryChoice::Kind::kNamed, std::move(ref)};
}

Result<std::vector<MemoryChoice>> recorded_memories(const json& names) {
  std::vector<MemoryChoice> out;
  if (!names.is_array() || names.empty() || names.size() > wire::kMaxSlots) {
    return invalid("argument steps", "a memory for each slot", "others");
  }
  for (const json& name : names) {
    MEMSLOT_TRY(MemoryChoice one, recorded_memory(name));
    out.push_back(std::move(one));
  }
  return out;
}

Result<ReplayStep> recorded_step(const json& item) {
  const bool formed = item.is_object() && item.contains("active") && item.contains("tokens") &&
                      item["tokens"].is_array() && item.contains("log_probs") &&
                      item["log_probs"].is_array() && item.contains("logits_xxh3") &&
                      item["logits_xxh3"].is_string() &&
                      item["tokens"].size() == item["log_probs"].size();
  if (!formed) {
    return invalid("argument steps", "active, tokens, log_probs and logits_xxh3 of each", "others");
  }
  ReplayStep out;
  MEMSLOT_TRY(out.active, recorded_memories(item["active"]));
  for (const json& id : item["tokens"]) {
    if (!id.is_number_integer()) return invalid("argument steps", "token ids", id.type_name());
    out.tokens.push_back(id.get<std::int32_t>());
  }
  for (const json& value : item["log_probs"]) {
    if (!value.is_number()) return invalid("argument steps", "numbers", value.type_name());
    out.log_probs.push_back(value.get<float>());
  }
  MEMSLOT_TRY(out.logits_xxh3, trace::parse_trace_id(item["logits_xxh3"].get<std::string>()));
  return out;
}

void read_steps(ArgumentReader& in, ReplayArguments* out) {
  const json* steps = in.take("steps");
  if (steps == nullptr || !steps->is_array()) {
    return in.fail("argument steps", "a list of steps", "none");
  }
  for (const json& item : *steps) {
    auto step = recorded_step(item);
    if (!step) return in.fail(step.error());
    if (step.value().active.size() != out->opening.size()) {
      return in.fail("argument steps", "as many slots as opening", "others");
    }
    if (!step.value().tokens.empty()) out->steps.push_back(std::move(step).value());
  }
}

// {"step", "memory", "slot" (0)}
Result<ReplayChange> change_of(const json& item, const ReplayArguments& arguments) {
  const bool formed = item.is_object() && item.contains("step") &&
                      item["step"].is_number_unsigned() && item.contains("memory") &&
                      item.size() == (item.contains("slot") ? 3u : 2u) &&
                      item.value("slot", json(0u)).is_number_unsigned();
  if (!formed) {
    return invalid("argument what_if", R"({"step": N, "memory": NAME} or {"choices": [such ones]})",
                   dump_start(item, 60));
  }
  const auto step = item["step"].get<std::uint64_t>();
  const auto slot = item.value("slot", std::uint64_t{0});
  const std::size_t steps = arguments.steps.size(), slots = arguments.opening.size();
  if (step >= steps) {
    return invalid("argument what_if", "a step under " + std::to_string(steps), step);
  }
  if (slot >= slots) {
    return invalid("argument what_if", "a slot under " + std::to_string(slots), slot);
  }
  auto memory = recorded_memory(item["memory"]);
  if (!memory) return memory.error().with_context("argument what_if");
  return ReplayChange{step, static_cast<std::uint32_t>(slot), std::move(memory).value()};
}

void read_changes(ArgumentReader& in, ReplayArguments* out) {
  const json* item = in.take("what_if");
  if (item == nullptr) return;
  const bool several = item->is_object() && item->size() == 1 && item->contains("choices") &&
                       (*item)["choices"].is_array();
  for (const json& one : several ? (*item)["choices"] : json::array({*item})) {
    auto change = change_of(one, *out);
    if (!change) return in.fail(change.error());
    const auto place = [](const ReplayChange& c) { return std::pair(c.step, c.slot); };
    if (!out->changes.empty() && place(out->changes.back()) >= place(change.value())) {
      return in.fail("argument what_if", "choices by step and slot, each once", "others");
    }
    out->changes.push_back(std::move(change).value());
  }
  if (out->changes.empty()) in.fail("argument what_if", "at least one choice", "none");
}

// --- running it ----------------------------------------------------------------------------------

using Schedule = std::vector<std::vector<MemoryChoice>>;  // by step, by slot

bool same(const MemoryChoice& a, const MemoryChoice& b) {
  return a.kind == b.kind && (a.kind == MemoryChoice::Kind::kBase || a.ref == b.ref);
}

struct Outcome {
  std::vector<std::vector<std::int32_t>> tokens;  // by step
  std::vector<std::uint64_t> logits_xxh3;
  double log_prob = 0;                // nats, of all tokens
  std::vector<double> step_log_prob;  // of each step's
};

double sum_of(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

class Replay {
 public:
  Replay(const TaskContext& context, ReplayArguments arguments)
      : context_(context), a_(std::move(arguments)) {}
  Result<std::string> run();

 private:
  // Runs the prompt and then steps of `counts` tokens with the memories of `schedule`; tokens are
  // those of `given`, or sampled where that is null. `on_step` may end it.
  Result<Outcome> follow(const Schedule& schedule, const std::vector<std::int32_t>* given,
                         const std::function<void(const StepReport&)>& on_step);
  Status swap(SessionRun& run, const std::vector<MemoryChoice>& from,
              const std::vector<MemoryChoice>& to);
  Status read_prompt(SessionRun& run);
  Schedule recorded() const;
  std::string text_of(const std::vector<std::int32_t>& tokens) const;
  json divergence(const Outcome& found, std::size_t steps) const;
  json differences() const;
  Result<std::string> as_recorded();
  Result<std::string> what_if();

  const TaskContext& context_;
  const ReplayArguments a_;
  std::unique_ptr<Session> after_prompt_;  // that a further pass goes on from; null: not read yet
};

Schedule Replay::recorded() const {
  Schedule out;
  for (const ReplayStep& step : a_.steps) out.push_back(step.active);
  return out;
}

std::string Replay::text_of(const std::vector<std::int32_t>& tokens) const {
  if (context_.engine.tokenizer == nullptr) return "";
  auto text = context_.engine.tokenizer->decode(tokens);
  return text ? std::move(text).value() : std::string();
}

Status Replay::swap(SessionRun& run, const std::vector<MemoryChoice>& from,
                    const std::vector<MemoryChoice>& to) {
  for (std::uint32_t slot = 0; slot < to.size(); ++slot) {
    if (same(from[slot], to[slot])) continue;
    const Status swapped = run.swap_slot(slot, to[slot]);
    if (!swapped && swapped.error().code == ErrorCode::kNotFound) {
      const bool asked = std::ranges::any_of(
          a_.changes, [&](const ReplayChange& change) { return same(change.memory, to[slot]); });
      return swapped.error().with_context(asked ? "argument what_if"
                                                : "gone since the trace was recorded");
    }
    MEMSLOT_TRY(swapped);
  }
  return ok();
}

// A what-if of a written text follows three schedules from the same place, under the opening
// memories: the first run reads the prompt, and what it then stands at is kept for the others.
Status Replay::read_prompt(SessionRun& run) {
  Engine& engine = context_.engine;
  if (after_prompt_ != nullptr) {
    return engine.scheduler.run([&] { return run.session().continue_from(*after_prompt_); });
  }
  MEMSLOT_TRY(run.prefill(context_.stop));
  if (a_.changes.empty() || !a_.written) return ok();
  SessionSettings settings;
  settings.kv = a_.kv;
  MEMSLOT_TRY(after_prompt_, Session::make(engine.gpt, engine.scratch, settings));
  return engine.scheduler.run([&] { return after_prompt_->continue_from(run.session()); });
}

Result<Outcome> Replay::follow(const Schedule& schedule, const std::vector<std::int32_t>* given,
                               const std::function<void(const StepReport&)>& on_step) {
  RunOptions options;
  options.session.namespaces = a_.namespaces;
  options.session.kv = a_.kv;
  options.needs_controller = true;
  options.sampled = given == nullptr;
  options.settings.sampling = a_.sampling;
  options.settings.digest_logits = true;
  int count = 0;
  const Tokenizer* const tokenizer = context_.engine.tokenizer;
  const auto goes_on = [&](std::int32_t id) {
    const bool ends = tokenizer != nullptr && (tokenizer->is_control(id) || id == tokenizer->eos());
    return !ends && !context_.stop.stop_requested();
  };
  MEMSLOT_TRY(
      auto run,
      SessionRun::open(context_.engine, a_.prompt, std::move(options), [&](Session& session) {
        return given == nullptr ? session.write(count, goes_on) : session.read(count);
      }));
  if (run->session().slots() != a_.opening.size()) {
    return memslot::mismatch("slots of the trace", run->session().slots(), a_.opening.size());
  }
  std::vector<MemoryChoice> active(a_.opening.size());
  MEMSLOT_TRY(swap(*run, active, a_.opening));
  MEMSLOT_TRY(run->steps().apply_pins());
  active = a_.opening;
  MEMSLOT_TRY(read_prompt(*run));
  if (given != nullptr) {
    MEMSLOT_TRY(run->session().add_tokens(*given));
  }
  Outcome out;
  std::size_t left = given == nullptr ? 0 : given->size();
  for (std::size_t step = 0; step < schedule.size(); ++step) {
    if (context_.stop.stop_requested()) return Error{ErrorCode::kCancelled, "cancelled"};
    count = static_cast<int>(a_.steps[step].tokens.size());
    if (given != nullptr) count = static_cast<int>(std::min(left, a_.steps[step].tokens.size()));
    if (count == 0) break;
    MEMSLOT_TRY(swap(*run, active, schedule[step]));
    active = schedule[step];
    MEMSLOT_TRY(const StepReport report, run->steps().run_one());
    auto& tokens = out.tokens.emplace_back();
    double log_prob = 0;
    for (const TokenFigures& token : report.output.tokens) {
      tokens.push_back(token.token);
      log_prob += static_cast<double>(token.log_prob);
    }
    left -= std::min(left, tokens.size());
    out.log_prob += log_prob;
    out.step_log_prob.push_back(log_prob);
    out.logits_xxh3.push_back(report.output.logits_xxh3);
    if (on_step) on_step(report);
    if (given == nullptr && tokens.size() < static_cast<std::size_t>(count)) break;  // it ended
    if (run->session().room() == 0) break;
  }
  static_cast<void>(run->close());
  return out;
}

// Null where the first `steps` of the run are the trace's, bit for bit.
json Replay::divergence(const Outcome& found, std::size_t steps) const {
  for (std::size_t i = 0; i < steps; ++i) {
    const ReplayStep& expected = a_.steps[i];
    if (i >= found.tokens.size()) {
      return {{"step", i}, {"what", "tokens"}, {"expected", expected.tokens}, {"found", {}}};
    }
    if (expected.tokens != found.tokens[i]) {
      const auto at = std::ranges::mismatch(expected.tokens, found.tokens[i]);
      return {{"step", i},
              {"what", "tokens"},
              {"token", at.in1 - expected.tokens.begin()},
              {"expected", expected.tokens},
              {"found", found.tokens[i]}};
    }
    if (expected.logits_xxh3 != found.logits_xxh3[i]) {
      return {{"step", i},
              {"what", "logits"},
              {"expected", trace::trace_id(expected.logits_xxh3)},
              {"found", trace::trace_id(found.logits_xxh3[i])}};
    }
  }
  return {};
}

// What is another build, machine or setting than when the trace was recorded.
json Replay::differences() const {
  const json then = json::parse(a_.build, nullptr, false);
  const json now = json::parse(build_json(context_.engine));
  json out = json::array();
  if (!then.is_object()) return out;
  for (const auto& [name, value] : now.items()) {
    const json before = then.value(name, json());
    if (before != value) out.push_back({{"name", name}, {"then", before}, {"now", value}});
  }
  return out;
}

Result<std::string> Replay::as_recorded() {
  std::vector<std::int32_t> all;
  for (const ReplayStep& step : a_.steps) {
    all.insert(all.end(), step.tokens.begin(), step.tokens.end());
  }
  std::size_t step = 0;
  const auto tell = [&](const StepReport& report) {
    json event = step_event(report, 0);
    event["text"] = text_of(event["tokens"].get<std::vector<std::int32_t>>());
    event["equal"] = report.output.logits_xxh3 == a_.steps[step].logits_xxh3;
    ++step;
    context_.emit(dump(event));
  };
  MEMSLOT_TRY(const Outcome found, follow(recorded(), a_.written ? nullptr : &all, tell));
  const json diverged = divergence(found, a_.steps.size());
  return dump(json{{"type", "replayed"},
                   {"trace", a_.trace},
                   {"identical", diverged.is_null()},
                   {"steps", found.tokens.size()},
                   {"tokens", all.size()},
                   {"divergence", diverged},
                   {"differences", differences()}});
}

Result<std::string> Replay::what_if() {
  const ReplayChange& change = a_.changes.front();
  Schedule changed = recorded();
  for (const ReplayChange& one : a_.changes) changed[one.step][one.slot] = one.memory;
  std::vector<std::int32_t> original;
  double original_log_prob = 0;
  for (const ReplayStep& step : a_.steps) {
    original.insert(original.end(), step.tokens.begin(), step.tokens.end());
    original_log_prob += sum_of(step.log_probs);
  }
  const auto tell = [&](const StepReport& report) {
    json event = step_event(report, change.slot);
    event["text"] = text_of(event["tokens"].get<std::vector<std::int32_t>>());
    context_.emit(dump(event));
  };
  json out = {{"type", "what_if"},
              {"trace", a_.trace},
              {"step", change.step},
              {"slot", change.slot},
              {"memory", memory_name(change.memory.ref)},
              {"instead_of", memory_name(a_.steps[change.step].active[change.slot].ref)},
              {"changes", a_.changes.size()},
              {"differences", differences()}};
  MEMSLOT_TRY(const Outcome other,
              follow(changed, &original, a_.written ? nullptr : std::function(tell)));
  json first = {{"text", text_of(original)},
                {"tokens", original},
                {"log_prob", original_log_prob},
                {"log_prob_with_change", other.log_prob}};
  if (!a_.written) {
    const json diverged = divergence(other, change.step);
    out["divergence"] = diverged;
    first["gain"] = (other.log_prob - original_log_prob) / static_cast<double>(original.size());
    out["original"] = std::move(first);
    return dump(out);
  }
  MEMSLOT_TRY(const Outcome found, follow(changed, nullptr, tell));
  out["divergence"] = divergence(found, change.step);
  std::vector<std::int32_t> written;
  for (const auto& tokens : found.tokens) {
    written.insert(written.end(), tokens.begin(), tokens.end());
  }
  MEMSLOT_TRY(const Outcome crossed, follow(recorded(), &written, nullptr));
  out["original"] = std::move(first);
  out["what_if"] = {{"text", text_of(written)},
                    {"tokens", written},
                    {"log_prob", found.log_prob},
                    {"log_prob_as_recorded", crossed.log_prob}};
  return dump(out);
}

Result<std::string> Replay::run() {
  MEMSLOT_TRY(const Scheduler::Place place, context_.engine.scheduler.admit(context_.stop));
  const json build = json::parse(a_.build, nullptr, false);
  const std::string model = context_.engine.model_digest.hex();
  if (build.is_object() && build.value("model", model) != model) {
    return memslot::mismatch("trace " + a_.trace + ": model", model, build.value("model", ""));
  }
  return a_.changes.empty() ? as_recorded() : what_if();
}

}  // namespace

Result<ReplayArguments> replay_arguments(std::string_view text) {
  ArgumentReader in(text);
  ReplayArguments out;
  in.text("trace", &out.trace);
  std::string origin = "written", kv = "activated";
  in.text("origin", &origin);
  out.written = origin != "read";
  in.texts("namespaces", &out.namespaces);
  if (const json* build = in.take("build")) out.build = build->dump();
  in.ids("ids", &out.prompt);
  if (out.prompt.empty()) in.fail("argument ids", "at least one token", "none");
  in.text("kv", &kv);
  if (kv == "recompute") out.kv = wire::KvMode::kRecompute;
  read_sampling(in, &out.sampling);
  if (const json* opening = in.take("opening")) {
    auto memories = recorded_memories(*opening);
    if (memories)
      out.opening = std::move(memories).value();
    else
      in.fail(memories.error());
  }
  if (out.opening.empty()) in.fail("argument opening", "a memory for each slot", "none");
  read_steps(in, &out);
  read_changes(in, &out);
  MEMSLOT_TRY(in.finish());
  if (out.steps.empty()) return invalid("trace", "at least one step with tokens", "none");
  return out;
}

Result<std::string> replay_task(const TaskContext& context, std::string_view arguments) {
  MEMSLOT_TRY(ReplayArguments parsed, replay_arguments(arguments));
  return Replay(context, std::move(parsed)).run();
}

}  // namespace memslot
