#include "generator/runtime/session_probe.h"

#include "generator/runtime/step_loop.h"
#include "shared/wire/names.h"

namespace memslot {

using wire::ActiveReason;
namespace {

constexpr std::array kReasonsInOrder = {ActiveReason::kOpening,        ActiveReason::kDirective,
                                        ActiveReason::kMissedDeadline, ActiveReason::kPinned,
                                        ActiveReason::kLoadFailed,     ActiveReason::kLate};
constexpr std::array kSources = {"base", "resident", "loaded"};

}  // namespace

void SessionProbe::stepped(const StepReport& report, bool sampled) {
  steps_[sampled ? 0 : 1].add();
  for (const wire::ActiveMemory& active : report.active) {
    slot_steps_[static_cast<std::size_t>(active.reason)].add();
  }
  if (report.advised_step) selection_.observe_us(report.select_us);
  swapped(report.swap, report.swap_source, report.stage_us);
  const std::size_t tokens = report.output.tokens.size();
  if (sampled && tokens > 0) {
    token_.observe_us(report.compute_us / static_cast<double>(tokens), tokens);
  } else if (!sampled) {
    tokens_read_.add(tokens);
    read_step_.observe_us(report.compute_us);
  }
}

void SessionProbe::swapped(const SwapOutcome& swap, SwapSource source, double stage_us) {
  if (!swap.changed) return;
  swaps_[static_cast<std::size_t>(source)].observe_us(stage_us + swap.swap_us);
  if (swap.recomputed == 0) return;
  recomputed_.add(static_cast<std::uint64_t>(swap.recomputed));
  recompute_.observe_us(swap.recompute_us);
}

void SessionProbe::prefilled(std::size_t tokens, Duration computed) {
  tokens_prefilled_.add(tokens);
  prefill_.observe(computed);
}

void SessionProbe::collect(metrics::Page& page) const {
  for (const std::size_t i : {0, 1}) {
    page.counter("memslot_generator_steps_total",
                 "Steps run, by whether their tokens were written or read (scored).",
                 steps_[i].value(), {{"work", i == 0 ? "write" : "read"}});
  }
  for (const ActiveReason reason : kReasonsInOrder) {
    page.counter("memslot_generator_slot_steps_total",
                 "Steps, once for each slot, by why what was active in the slot was active.",
                 slot_steps_[static_cast<std::size_t>(reason)].value(),
                 {{"reason", reason_name(reason)}});
  }
  page.counter("memslot_generator_missed_deadlines_total",
               "Directives that did not come in time: what was active stayed.",
               missed_deadlines_.value());
  page.histogram("memslot_generator_selection_seconds",
                 "Round trip of a selection, from observation sent to directive received, of the "
                 "steps that followed one.",
                 selection_);
  page.histogram("memslot_generator_token_seconds",
                 "Computing one written token; a step's tokens share its mean.", token_);
  page.histogram("memslot_generator_read_step_seconds", "Computing one read (scored) step.",
                 read_step_);
  page.counter("memslot_generator_read_tokens_total", "Tokens of read (scored) steps.",
               tokens_read_.value());
  page.histogram("memslot_generator_prefill_seconds",
                 "Computing one prompt, without its waiting for other sessions.", prefill_);
  page.counter("memslot_generator_prefill_tokens_total", "Prompt tokens computed.",
               tokens_prefilled_.value());
  for (std::size_t i = 0; i < kSources.size(); ++i) {
    page.histogram("memslot_generator_swap_seconds",
                   "One swap, from the decision to the activation, by where its memory came from: "
                   "to base, a resident memory, one that had to be loaded (fetched too, where its "
                   "payload did not come along).",
                   swaps_[i], {{"source", kSources[i]}});
  }
  for (const std::size_t i : {0, 1}) {
    page.counter("memslot_generator_resident_lookups_total",
                 "Memories looked for among the residents as a swap needed them.",
                 lookups_[i].value(), {{"result", i == 0 ? "hit" : "miss"}});
  }
  page.histogram("memslot_generator_recompute_seconds",
                 "Recomputing the cache after a swap, in sessions of kv mode recompute.",
                 recompute_);
  page.counter("memslot_generator_recomputed_positions_total",
               "Cache positions computed again after swaps.", recomputed_.value());
}

}  // namespace memslot
