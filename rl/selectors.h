#pragma once
// Ways to choose a memory on the streams of a gain table: the learned policy beside the rules and
// references that it is compared with. Some see what no causal chooser can (oracle), or only what a
// costly one could (audition).
//
// Threads: immutable.
#include <cstdint>
#include <memory>
#include <string>

#include "rl/stream_env.h"

namespace memslot {

class Selector {
 public:
  virtual ~Selector() = default;
  virtual std::string name() const = 0;
  // A memory's place in the table, or kBaseAction.
  virtual std::int32_t choose(const StreamEnv& env, std::size_t stream, std::size_t step,
                              const EnvState& state) const = 0;
};

// Any policy, over the environment's candidates.
std::unique_ptr<Selector> policy_selector(std::string name,
                                          std::shared_ptr<const SelectionPolicy> policy);
std::unique_ptr<Selector> base_selector();
// Uniform over the memories, never base.
std::unique_ptr<Selector> random_selector(std::uint64_t seed);
// The memory of the nearest key over all memories, if its cosine exceeds the threshold; before the
// first summary what is active stays.
std::unique_ptr<Selector> nearest_selector(float threshold);
// WISE's routing rule (Wang et al. 2024, arXiv:2405.14768): Delta_m, the mean distance of the
// slot's output with m from base's over the previous step; of the memories above `ratio` times
// their own least Delta while they were learned the one with the largest; base where there is none.
std::unique_ptr<Selector> wise_selector(float ratio = 0.88f);
// Re-scores the candidates on the previous step: the best net gain there, base if none is above 0.
std::unique_ptr<Selector> audition_selector();
// The best action of the previous step over all memories; base at first.
std::unique_ptr<Selector> lagged_oracle_selector();
std::unique_ptr<Selector> oracle_selector();

}  // namespace memslot
