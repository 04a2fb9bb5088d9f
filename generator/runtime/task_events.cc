#include "generator/runtime/task_events.h"

#include "generator/model/tokenizer.h"

namespace memslot {

using nlohmann::json;

json step_event(const StepReport& report, std::uint32_t slot) {
  json tokens = json::array(), log_probs = json::array();
  for (const TokenFigures& token : report.output.tokens) {
    tokens.push_back(token.token);
    log_probs.push_back(token.log_prob);
  }
  json event = {{"type", "step"},
                {"step", report.step},
                {"memory", memory_name(report.active[slot].ref)},
                {"reason", reason_name(report.active[slot].reason)},
                {"tokens", std::move(tokens)},
                {"log_probs", std::move(log_probs)},
                {"entropy", report.output.summary.entropy},
                {"surprise", report.output.summary.surprise},
                {"candidates", report.candidates},
                {"swap_us", report.swap.swap_us},
                {"select_us", report.select_us}};
  if (report.swap.recomputed > 0) {
    event["recompute_us"] = report.swap.recompute_us;
    event["recomputed"] = report.swap.recomputed;
  }
  if (report.gain) event["gain"] = *report.gain;
  if (report.active.size() > 1) {
    json& slots = event["slots"] = json::array();
    for (const wire::ActiveMemory& active : report.active) {
      slots.push_back(
          {{"memory", memory_name(active.ref)}, {"reason", reason_name(active.reason)}});
    }
  }
  return event;
}

Result<std::vector<std::int32_t>> ids_of(const Tokenizer* tokenizer, const TextArguments& text) {
  if (text.ids) {
    if (text.ids->empty()) return invalid("text", "at least one token", "none");
    return *text.ids;
  }
  if (tokenizer == nullptr) {
    return Error{ErrorCode::kNotFound, "tokenizer: expected one in the model file, found none"};
  }
  MEMSLOT_TRY(auto ids, tokenizer->encode(*text.text, {.add_bos = tokenizer->add_bos()}));
  if (ids.empty()) return invalid("text", "at least one token", "an empty text");
  return ids;
}

}  // namespace memslot
