#include "generator/runtime/task_arguments.h"

#include <algorithm>  // stable_sort

#include "generator/runtime/argument_reader.h"
#include "generator/runtime/stop_matcher.h"

namespace memslot {
namespace {

constexpr int kMaxStepTokens = 512;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 24;

Result<MemoryChoice> memory_choice(const std::string& text, const std::string& default_ns) {
  if (text == "auto") return MemoryChoice{MemoryChoice::Kind::kAuto, {}};
  if (text == "base") return MemoryChoice{MemoryChoice::Kind::kBase, {}};
  MEMSLOT_TRY(MemoryRef ref, MemoryRef::parse(text, default_ns));
  return MemoryChoice{MemoryChoice::Kind::kNamed, std::move(ref)};
}

void read_memory(ArgumentReader& in, const std::vector<std::string>& namespaces,
                 const std::string& fallback, MemoryChoice* out) {
  std::string text = fallback;
  in.text("memory", &text);
  auto choice = memory_choice(text, namespaces.empty() ? "default" : namespaces.front());
  if (choice)
    *out = std::move(choice).value();
  else
    in.fail(choice.error().with_context("argument memory"));
}

void read_namespaces(ArgumentReader& in, std::vector<std::string>* out) {
  in.texts("namespaces", out);
  for (const std::string& ns : *out) {
    if (const Status named = check_name("namespace", ns); !named) in.fail(named.error());
  }
}

void read_session(ArgumentReader& in, const std::string& memory, SessionArguments* out) {
  read_namespaces(in, &out->namespaces);
  read_memory(in, out->namespaces, memory, &out->memory);
  in.integer("slot", &out->slot, 0, 63);
  in.text("policy", &out->policy);
  in.integer("step_tokens", &out->step_tokens, 1, kMaxStepTokens);
  std::string kv = "activated";
  in.text("kv", &kv);
  if (kv == "recompute")
    out->kv = wire::KvMode::kRecompute;
  else if (kv != "activated")
    in.fail("argument kv", "activated or recompute", kv);
}

// After read_session(): with a schedule "auto" means base until the first swap.
void read_schedule(ArgumentReader& in, SessionArguments* session, ForcedSwaps* out) {
  const nlohmann::json* list = in.take("schedule");
  if (list == nullptr) return;
  const auto& namespaces = session->namespaces;
  const std::string default_ns = namespaces.empty() ? "default" : namespaces.front();
  if (!list->is_array()) return in.wrong("schedule", "a list of {step, memory}", *list);
  for (const nlohmann::json& item : *list) {
    const bool formed = item.is_object() && item.size() == 2 && item.contains("step") &&
                        item["step"].is_number_unsigned() && item.contains("memory") &&
                        item["memory"].is_string();
    if (!formed) return in.wrong("schedule", "entries {\"step\": N, \"memory\": NAME}", item);
    auto choice = memory_choice(item["memory"].get<std::string>(), default_ns);
    if (!choice) return in.fail(choice.error().with_context("argument schedule"));
    if (choice.value().kind == MemoryChoice::Kind::kAuto) {
      return in.wrong("schedule", "base or a memory's name", item);
    }
    out->push_back({item["step"].get<std::uint64_t>(), std::move(choice).value()});
  }
  std::stable_sort(out->begin(), out->end(),
                   [](const ForcedSwap& a, const ForcedSwap& b) { return a.step < b.step; });
  if (!out->empty() && session->memory.kind == MemoryChoice::Kind::kAuto) {
    session->memory.kind = MemoryChoice::Kind::kBase;
  }
}

// Exactly one of `name`, a text, and "ids".
void read_text(ArgumentReader& in, const char* name, TextArguments* out) {
  if (in.has(name) == in.has("ids")) {
    in.fail("arguments", "either " + std::string(name) + " or ids",
            in.has(name) ? "both" : "neither");
  }
  if (in.has(name))
    in.text(name, &out->text.emplace());
  else
    in.take(name);
  if (in.has("ids"))
    in.ids("ids", &out->ids.emplace());
  else
    in.take("ids");
}

void read_deadline(ArgumentReader& in, Duration* out) {
  std::int64_t milliseconds = 1000;
  in.integer("deadline_ms", &milliseconds, 1, 600'000);
  *out = std::chrono::milliseconds(milliseconds);
}

}  // namespace

void read_sampling(ArgumentReader& in, SamplingSettings* out) {
  in.number("temperature", &out->temperature);
  in.integer("top_k", &out->top_k, 0, kMaxTokens);
  in.number("top_p", &out->top_p);
  out->seed = 1;
  in.integer("seed", &out->seed, 0, std::numeric_limits<std::int64_t>::max());
  if (const Status checked = check_sampling(*out); !checked) in.fail(checked.error());
}

Result<GenerateArguments> generate_arguments(std::string_view json) {
  ArgumentReader in(json);
  GenerateArguments out;
  read_text(in, "prompt", &out.prompt);
  read_session(in, "auto", &out.session);
  std::string select = "sync";
  in.text("select", &select);
  if (select == "async")
    out.select = wire::SelectMode::kAsync;
  else if (select != "sync")
    in.fail("argument select", "sync or async", select);
  in.integer("max_tokens", &out.max_tokens, 1, kMaxTokens);
  read_sampling(in, &out.sampling);
  in.texts("stop", &out.stop);
  if (auto stops = StopMatcher::make(out.stop); !stops) in.fail(stops.error());
  in.integer("top_log_probs", &out.top_log_probs, 0, 20);
  in.flag("explore", &out.explore);
  read_deadline(in, &out.deadline);
  in.flag("write_back", &out.write_back);
  in.integer("write_back_every", &out.write_back_every, 0, kMaxTokens);
  read_schedule(in, &out.session, &out.schedule);
  in.flag("trace", &out.trace);
  MEMSLOT_TRY(in.finish());
  return out;
}

Result<ScoreArguments> score_arguments(std::string_view json) {
  ArgumentReader in(json);
  ScoreArguments out;
  read_text(in, "text", &out.text);
  read_session(in, "base", &out.session);
  in.integer("top_logits", &out.top_logits, 0, 64);
  read_deadline(in, &out.deadline);
  read_schedule(in, &out.session, &out.schedule);
  in.flag("trace", &out.trace);
  MEMSLOT_TRY(in.finish());
  return out;
}

Result<GainsArguments> gains_arguments(std::string_view json) {
  constexpr std::size_t kMaxCandidates = 65536;
  ArgumentReader in(json);
  GainsArguments out;
  read_text(in, "text", &out.text);
  read_namespaces(in, &out.namespaces);
  std::vector<std::string> memories;
  in.texts("memories", &memories);
  if (memories.size() > kMaxCandidates) {
    in.fail("argument memories", "at most " + std::to_string(kMaxCandidates),
            std::to_string(memories.size()));
  }
  for (const std::string& name : memories) {
    auto choice = memory_choice(name, out.namespaces.empty() ? "default" : out.namespaces.front());
    if (!choice) {
      in.fail(choice.error().with_context("argument memories"));
    } else if (choice.value().kind != MemoryChoice::Kind::kNamed) {
      in.fail("argument memories", "memories' names (base is scored beside them)", name);
    } else {
      out.memories.push_back(std::move(choice).value().ref);
    }
  }
  const bool cut = in.has("steps");
  in.ids("steps", &out.steps);
  if (cut && in.has("step_tokens")) {
    in.fail("arguments", "either steps or step_tokens", "both");
  }
  if (cut && out.steps.empty()) in.fail("argument steps", "at least one step", "none");
  in.integer("step_tokens", &out.step_tokens, 1, kMaxStepTokens);
  in.integer("slot", &out.slot, 0, 63);
  MEMSLOT_TRY(in.finish());
  return out;
}

Result<TextArguments> tokenize_arguments(std::string_view json) {
  ArgumentReader in(json);
  TextArguments out;
  read_text(in, "text", &out);
  MEMSLOT_TRY(in.finish());
  return out;
}

Status no_arguments(std::string_view json) {
  ArgumentReader in(json);
  return in.finish();
}

Result<BenchArguments> bench_arguments(std::string_view json) {
  using What = BenchArguments::What;
  static const std::pair<const char*, What> kNames[] = {{"decode", What::kDecode},
                                                        {"prefill", What::kPrefill},
                                                        {"swap", What::kSwap},
                                                        {"recompute", What::kRecompute},
                                                        {"learn_step", What::kLearnStep},
                                                        {"round_trip", What::kRoundTrip}};
  ArgumentReader in(json);
  BenchArguments out;
  std::string what = "decode";
  in.text("what", &what);
  const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](const auto& name) { return what == name.first; });
  if (found != std::end(kNames))
    out.what = found->second;
  else
    in.fail("argument what", "decode, prefill, swap, recompute, learn_step or round_trip", what);
  in.integer("tokens", &out.tokens, 1, kMaxTokens);
  in.integer("repeats", &out.repeats, 1, 1'000'000);
  read_namespaces(in, &out.namespaces);
  read_memory(in, out.namespaces, "base", &out.memory);
  in.integer("slot", &out.slot, 0, 63);
  in.text("policy", &out.policy);
  MEMSLOT_TRY(in.finish());
  return out;
}

}  // namespace memslot
