#pragma once
// The streams of a gain table as a world in which a policy acts: at each step it gets the
// candidates that the controller would give it, chooses, and earns the step's net gain.
//
//   query_t     whitened mean of the hidden summaries of the last `window_tokens` tokens before t;
//               and one of `long_window_tokens`
//   candidates  base, the current memory, the nearest by best key up to K (DESIGN section 4), of
//               those memories that were scored on the stream
//   reward      net(t, m) - swap_cost [m is not what was active] - margin [m is not base]
//               net(t, base) = 0
//
// Whitening is fitted on training text only, or given: the one that a policy was trained in. Its
// rows are the keys of their memories and the hidden summaries of the training streams' steps that
// no memory covers: what varies in any text says nothing about which memory fits, and few sources'
// keys alone do not show it (docs/performance.md).
//
// Where the whitening is fitted here, similarities on training streams are cross-fitted
// (Chernozhukov et al. 2018, doi:10.1111/ectj.12097): those of a text are taken in a whitening that
// was fitted without its source. In one that has seen it, its keys and its queries lie further from
// everything else, and a policy would learn thresholds that hold for no other text. Vectors stay
// those of the policy's whitening. Everything that does not depend on the choices is computed once,
// by the constructor.
//
// Threads: const calls from any thread. The table must outlive the environment.
#include <cstdint>
#include <span>
#include <vector>

#include "rl/bf16_product.h"
#include "rl/gain_table.h"
#include "rl/selection_policy.h"
#include "rl/whitening.h"

namespace memslot {

inline constexpr std::int32_t kBaseAction = -1;  // elsewhere a memory's place in the table

struct EnvOptions {
  std::size_t candidates = 32;  // K, 2 or more
  std::uint32_t window_tokens = 32;
  std::uint32_t long_window_tokens = 48;
  float swap_cost = 0.0f;  // nats per token
  float margin = 0.0f;     // nats per token that a memory must be worth to be preferred to base
};

// As a session begins: base is active, and what was read before the first choice counts as one
// step, as it does in a generator's observations (docs/formats/wire.md).
struct EnvState {
  std::int32_t active = kBaseAction;
  std::uint32_t steps_since_swap = 1;  // run with what is active
};

struct EnvDecision {
  std::vector<std::int32_t> actions;  // parallel to the candidates; the first is kBaseAction
  std::vector<Candidate> candidates;
  StepContext context;
};

// The one that the first constructor fits.
Whitening training_whitening(const GainTable& table);

class StreamEnv {
 public:
  // Fits the whitening, and cross-fits what training streams are compared in: for training.
  StreamEnv(const GainTable& table, EnvOptions options);
  // Compares everything in `whitening`: for judging. REQUIRES: whitening.dim() == table.dim().
  StreamEnv(const GainTable& table, EnvOptions options, Whitening whitening);

  const GainTable& table() const { return table_; }
  const EnvOptions& options() const { return options_; }
  const Whitening& whitening() const { return spaces_.front().whitening; }
  std::uint32_t key_dim() const { return whitening().reduced_dim(); }  // R

  // The streams of a split, by their places in the table.
  std::vector<std::size_t> streams(Split split) const;
  // The step at which a stream's first choice is made: what comes before is a prompt, read with
  // base.
  std::size_t first_decision(std::size_t stream) const;

  // Views in it live as long as the environment. Memories with a mark in `hidden` (M, or empty:
  // none) are not among the candidates, as if the bank did not have them.
  EnvDecision decision(std::size_t stream, std::size_t step, const EnvState& state,
                       std::span<const char> hidden = {}) const;
  EnvState after(const EnvState& state, std::int32_t action) const;

  float generic(std::size_t stream, std::size_t step) const { return generic_[row(stream, step)]; }
  float gain(std::size_t stream, std::size_t step, std::int32_t action) const;  // 0 for base
  float net(std::size_t stream, std::size_t step, std::int32_t action) const;
  float base_surprise(std::size_t stream, std::size_t step) const;
  // False before the first summary.
  bool has_query(std::size_t stream, std::size_t step) const {
    return known_[row(stream, step)] != 0;
  }
  float reward(std::size_t stream, std::size_t step, const EnvState& before,
               std::int32_t action) const;
  // The best action in hindsight, over all memories that were scored, and base; ties go to base,
  // then to the first.
  std::int32_t oracle(std::size_t stream, std::size_t step) const;

  // Similarities of a memory at a step; 0 before the first summary, -2 if it was not scored.
  float best_key(std::size_t stream, std::size_t step, std::size_t memory) const {
    return similar(row(stream, step), kBestKey)[memory];
  }
  std::uint64_t row(std::size_t stream, std::size_t step) const {
    return table_.streams[stream].first + step;
  }

 private:
  enum Similarity : std::size_t { kBestKey, kMeanKey, kLongKey, kSimilarities };
  float* similar(std::uint64_t row, Similarity which) {
    return similar_.data() + (row * kSimilarities + which) * table_.memories.size();
  }
  const float* similar(std::uint64_t row, Similarity which) const {
    return const_cast<StreamEnv*>(this)->similar(row, which);
  }
  // The memories' keys as one whitening shows them.
  struct Space {
    Whitening whitening;
    std::vector<std::uint16_t> keys;  // (n, W) bf16
    std::vector<float> means;         // (M, R), length 1
  };
  StreamEnv(const GainTable& table, EnvOptions options, Whitening whitening, bool cross_fitted);
  void add_space(Whitening whitening);
  const Space& space_of(std::size_t stream, std::size_t step) const;
  void judge(std::size_t stream);
  Whitened query(const Whitening& whitening, std::size_t stream, std::size_t step,
                 std::uint32_t window) const;
  void compare(std::size_t stream, std::size_t step);
  float nearest_key(const Space& space, std::size_t memory, const Bf16Product& query) const;
  void rank(std::uint64_t row);

  const GainTable& table_;
  EnvOptions options_;
  std::vector<Space> spaces_;          // the policy's; then, if cross-fitted, one without each fold
  std::vector<float> queries_;         // (S, R); all zero: none
  std::vector<char> known_;            // (S): there is a query
  std::vector<float> similar_;         // (S, kSimilarities, M)
  std::vector<std::int32_t> nearest_;  // (S, M): by best key, nearest first
  std::vector<float> generic_;         // (S)
  std::vector<std::int32_t> oracle_;   // (S)
};

}  // namespace memslot
