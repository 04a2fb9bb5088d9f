#pragma once
// Which memory to load at a step. Torch-free: the learned policy lives behind it.
//
// Threads: choose() may be called from any thread; a policy is immutable once made.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/memory/kind.h"
#include "shared/memory/record.h"

namespace memslot {

// One memory that the policy may choose. Index 0 of a step's candidates is always `base`.
struct Candidate {
  MemoryRef ref;  // ref.id empty: base
  MemoryKind kind = MemoryKind::kMlp;
  bool is_base = false;
  bool is_current = false;       // active during the previous step
  bool resident = false;         // in the generator's memory: loading is free of transfer
  float best_key = 0;            // cosine of the whitened query with the nearest key, in [-1, 1]
  float mean_key = 0;            // ... with the mean of the memory's keys
  float long_key = 0;            // best_key of the query over the longer window
  std::span<const float> key{};  // (R) that mean, whitened, length 1; empty: base, or no keys
  float past_net_gain = 0;       // nats per token, mean over past uses; 0 if none
  std::uint32_t uses = 0;
  std::uint64_t age = 0;  // publishes since its own, no clock
  float swap_cost = 0;    // nats per token, subtracted from the reward
};

// The place of what is active among a step's candidates: 0, base, where no memory is.
inline std::size_t current_of(std::span<const Candidate> candidates) {
  for (std::size_t i = 1; i < candidates.size(); ++i) {
    if (candidates[i].is_current) return i;
  }
  return 0;
}

struct StepContext {
  std::uint64_t session = 0;
  std::uint64_t step = 0;
  std::uint64_t seed = 0;              // sampling is counter-based on (seed, session, step)
  float entropy = 0;                   // nats
  float surprise = 0;                  // nats
  std::uint32_t steps_since_swap = 0;  // run with what is active; a session begins with 1
  std::span<const float> query{};  // whitened, reduced, normalised; empty before the first summary
  bool explore = false;            // sample; otherwise argmax
};

struct Choice {
  std::size_t index = 0;      // into the candidates
  float log_prob = 0;         // of the choice under the policy
  std::vector<float> scores;  // one per candidate
  bool write_back = true;     // whether a dirty state should go to the bank
};

class SelectionPolicy {
 public:
  virtual ~SelectionPolicy() = default;
  virtual std::string_view name() const = 0;
  // Identifies parameters; "" for rules. A session stays on the policy it began with.
  virtual std::string_view digest() const = 0;
  // A memory that must be among the candidates wherever the session may see it; null for none.
  virtual const MemoryRef* wanted() const { return nullptr; }
  // REQUIRES: candidates not empty, candidates[0].is_base.
  virtual Choice choose(const StepContext& step, std::span<const Candidate> candidates) const = 0;
};

// What a session asks for: "base", "random", "nearest[:<threshold>]" (a cosine in [-1, 1]) or
// "fixed:<namespace>/<id>[@version]".
// kInvalidArgument.
Result<std::shared_ptr<const SelectionPolicy>> make_policy(std::string_view spec);

}  // namespace memslot
