#include "controller/replay/recorded_features.h"

#include "rl/whitened_keys.h"

namespace memslot {

StepContext recorded_context(std::uint64_t session, const trace::Decision& decision) {
  return {.session = session,
          .step = decision.step,
          .seed = decision.seed,
          .entropy = decision.entropy,
          .surprise = decision.surprise,
          .steps_since_swap = decision.steps_since_swap,
          .query = decision.query,
          .explore = decision.explore};
}

Result<const RecordedFeatures::Known*> RecordedFeatures::known(const PolicySnapshot& learned,
                                                               const MemoryRef& ref) {
  const std::pair key(learned.digest, ref);
  const auto found = known_.find(key);
  if (found != known_.end()) return &found->second;
  const auto version = bank_.version(ref, deadline_);
  if (!version) return version.error().with_context("gone since the trace was recorded");
  Known out{.kind = version.value().signature.kind, .mean = {}};
  if (version.value().keys > 0) {
    MEMSLOT_TRY(const MemoryKeys keys, bank_.load_keys(version.value(), deadline_));
    const Whitening& whitening = learned.checkpoint.whitening;
    if (keys.dim != whitening.dim()) {
      return mismatch("policy learned's whitening: width of " + ref.text() + "'s keys", keys.dim,
                      whitening.dim());
    }
    out.mean = whiten_keys(whitening, keys.values).mean;
  }
  return &(known_[key] = std::move(out));
}

Result<std::vector<Candidate>> RecordedFeatures::candidates_of(const trace::Decision& decision,
                                                               const PolicySnapshot* learned) {
  std::vector<Candidate> out;
  for (const trace::Candidate& c : decision.candidates) {
    Candidate& one = out.emplace_back();
    one.ref = c.ref;
    one.is_base = c.ref.id.empty();
    one.is_current = c.current;
    one.resident = c.resident;
    one.best_key = c.best_key;
    one.mean_key = c.mean_key;
    one.long_key = c.long_key;
    one.past_net_gain = c.past_net_gain;
    one.uses = c.uses;
    one.age = c.age;
    one.swap_cost = c.swap_cost;
    if (one.is_base || learned == nullptr) continue;
    MEMSLOT_TRY(const Known* const memory, known(*learned, c.ref));
    one.kind = memory->kind;
    one.key = memory->mean;
  }
  return out;
}

}  // namespace memslot
