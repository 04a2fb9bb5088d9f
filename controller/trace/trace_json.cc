#include "controller/trace/trace_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "shared/base/json_dump.h"
#include "shared/wire/names.h"

namespace memslot::trace_json {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kPageBytes = std::size_t{2} << 20;  // of steps; an envelope holds 4 MiB

const char* origin_name(trace::Origin origin) {
  return origin == trace::Origin::kRead ? "read" : "written";
}

Json json_of(const TraceSummary& s) {
  return {{"trace", s.id},
          {"created_unix_ms", s.created_unix_ms},
          {"origin", origin_name(s.origin)},
          {"namespaces", s.namespaces},
          {"prompt", s.prompt},
          {"policy", s.policy},
          {"memories", s.memories},
          {"steps", s.steps},
          {"tokens", s.tokens},
          {"bytes", s.bytes},
          {"ended", s.ended},
          {"finish", s.finish},
          {"error", s.error}};
}

// Base has no similarity, and what was not recorded none either.
Json json_of(const trace::Candidate& c, const std::optional<double>& probability) {
  Json out = {{"memory", memory_name(c.ref)}, {"score", c.score}};
  if (probability) out["probability"] = *probability;
  out.update({{"current", c.current},
              {"resident", c.resident},
              {"best_key", c.best_key},
              {"mean_key", c.mean_key},
              {"long_key", c.long_key},
              {"past_net_gain", c.past_net_gain},
              {"uses", c.uses},
              {"age", c.age},
              {"swap_cost", c.swap_cost}});
  return out;
}

// A learned policy's scores are logits: all probabilities follow from that of the chosen one. None
// of a rule's, and of scores that are no logits (where a feature was not finite).
std::vector<std::optional<double>> probabilities(const trace::Decision& d) {
  std::vector<std::optional<double>> out(d.candidates.size());
  if (!d.policy.starts_with("learned:")) return out;
  const double chosen = static_cast<double>(d.candidates[d.chosen].score);
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double score = static_cast<double>(d.candidates[i].score);
    out[i] = std::exp(static_cast<double>(d.log_prob) + score - chosen);
    sum += *out[i];
  }
  constexpr double kRounding = 1e-3;
  if (!(sum <= 1 + kRounding)) out.assign(out.size(), std::nullopt);
  return out;
}

Json json_of(const trace::Decision& d, bool candidates) {
  Json out = {{"slot", d.slot},
              {"policy", d.policy},
              {"chosen", memory_name(d.candidates[d.chosen].ref)},
              {"log_prob", d.log_prob},
              {"entropy", d.entropy},
              {"surprise", d.surprise},
              {"steps_since_swap", d.steps_since_swap},
              {"explore", d.explore}};
  if (!candidates) return out;
  Json& rows = out["candidates"] = Json::array();
  const auto probability = probabilities(d);
  for (std::size_t i = 0; i < d.candidates.size(); ++i) {
    rows.push_back(json_of(d.candidates[i], probability[i]));
  }
  return out;
}

std::string hex(std::uint64_t value) { return trace::trace_id(value); }

Json json_of(const trace::Step& s) {
  Json active = Json::array();
  for (const trace::Active& a : s.active) {
    Json one = {{"slot", a.slot}, {"memory", memory_name(a.memory.ref)}};
    if (!a.memory.is_base()) one["sha256"] = a.memory.sha256.hex();
    one["reason"] = reason_name(a.reason);
    active.push_back(std::move(one));
  }
  Json out = {{"step", s.step},
              {"active", std::move(active)},
              {"tokens", s.tokens},
              {"log_probs", s.log_probs},
              {"text", s.text},
              {"logits_xxh3", hex(s.logits_xxh3)},
              {"entropy", s.entropy},
              {"surprise", s.surprise},
              {"candidates", s.candidates},
              {"select_us", s.select_us},
              {"swap_us", s.swap_us},
              {"compute_us", s.compute_us}};
  if (s.gain) out["gain"] = *s.gain;
  if (s.advised_step) out["advised_step"] = *s.advised_step;
  if (s.recomputed > 0) {
    out["recompute_us"] = s.recompute_us;
    out["recomputed"] = s.recomputed;
  }
  return out;
}

Json parsed(const std::string& text) {
  Json out = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return out.is_object() ? out : Json::object();
}

}  // namespace

std::string list(const std::vector<TraceSummary>& traces, const std::string& next) {
  Json all = Json::array();
  for (const TraceSummary& one : traces) all.push_back(json_of(one));
  return dump(Json{{"traces", std::move(all)}, {"next", next}});
}

std::string show(const TraceSummary& summary, const trace::Trace& trace, std::uint64_t from,
                 std::size_t count, bool candidates) {
  Json out = json_of(summary);
  out["prompt"] = trace.start.prompt_text;
  out["prompt_tokens"] = trace.start.prompt.size();
  out["build"] = parsed(trace.start.build);
  out["request"] = parsed(trace.start.request);
  Json opening = Json::array();
  for (const trace::NamedMemory& memory : trace.start.opening) {
    opening.push_back(memory_name(memory.ref));
  }
  out["opening"] = std::move(opening);
  Json steps = Json::array();
  Json next;
  std::size_t bytes = 0;
  for (const trace::Step& step : trace.steps) {
    if (step.step < from) continue;
    if (steps.size() == count || bytes > kPageBytes) {
      next = step.step;
      break;
    }
    Json one = json_of(step);
    Json decisions = Json::array();
    for (const trace::Decision& d : trace.decisions) {
      if (d.step == step.step) decisions.push_back(json_of(d, candidates));
    }
    if (!decisions.empty()) one["decisions"] = std::move(decisions);
    bytes += dump(one).size();
    steps.push_back(std::move(one));
  }
  out["shown"] = std::move(steps);
  out["next"] = std::move(next);
  Json write_backs = Json::array();
  for (const trace::WriteBack& w : trace.write_backs) {
    write_backs.push_back({{"step", w.step},
                           {"from", w.from},
                           {"stored", w.stored},
                           {"conflict", w.conflict},
                           {"error", w.error}});
  }
  out["write_backs"] = std::move(write_backs);
  Json faults = Json::array();  // of the shown steps
  const std::uint64_t end =
      next.is_null() ? std::numeric_limits<std::uint64_t>::max() : next.get<std::uint64_t>();
  for (const trace::Fault& f : trace.faults) {
    if (f.step >= from && f.step < end) faults.push_back({{"step", f.step}, {"text", f.text}});
  }
  out["faults"] = std::move(faults);
  Json feedback = Json::array();
  for (const trace::Feedback& f : trace.feedback) feedback.push_back(f.value);
  out["feedback"] = std::move(feedback);
  if (trace.end) {
    out["missed_deadlines"] = trace.end->missed;
    out["load_failures"] = trace.end->load_failures;
    out["prefill_seconds"] = trace.end->prefill_seconds;
    out["decode_seconds"] = trace.end->decode_seconds;
  }
  if (trace.damage) out["damage"] = trace.damage->message;
  return dump(out);
}

std::string replay_arguments(const TraceSummary& summary, const trace::Trace& trace,
                             const std::string& what_if) {
  const Json request = parsed(trace.start.request);
  Json out = {{"trace", summary.id},
              {"origin", origin_name(trace.start.origin)},
              {"namespaces", trace.start.namespaces},
              {"build", parsed(trace.start.build)},
              {"ids", trace.start.prompt}};
  for (const char* name : {"kv", "temperature", "top_k", "top_p", "seed"}) {
    if (request.contains(name)) out[name] = request[name];
  }
  Json opening = Json::array();
  for (const trace::NamedMemory& memory : trace.start.opening) {
    opening.push_back(memory_name(memory.ref));
  }
  out["opening"] = std::move(opening);
  Json steps = Json::array();
  for (const trace::Step& step : trace.steps) {
    Json active = Json::array();
    for (const trace::Active& a : step.active) active.push_back(memory_name(a.memory.ref));
    steps.push_back({{"active", std::move(active)},
                     {"tokens", step.tokens},
                     {"log_probs", step.log_probs},
                     {"logits_xxh3", hex(step.logits_xxh3)}});
  }
  out["steps"] = std::move(steps);
  if (!what_if.empty()) out["what_if"] = parsed(what_if);
  return dump(out);
}

}  // namespace memslot::trace_json
