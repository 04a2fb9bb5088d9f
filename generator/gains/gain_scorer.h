#pragma once
// Counterfactual scoring of one text: what every candidate memory would have made of every step,
// active over the whole prefix (recompute semantics).
//
//   surprise(t, m) = mean over the step's tokens of -log p(token | those before, m)    nats
//   entropy(t, m)  = mean entropy of the distributions that predict them               nats
//   activation(t, m) = mean over the step's rows of ||slot(x; m) - slot(x; base)||_2
//   gain(t, m) = surprise(t, base) - surprise(t, m)
//
// Tokens: a text of T tokens has T - 1 that are predicted; steps cut those, from the text's second
// token on, as `score` and reading sessions do. The rows of a step are the positions that predict
// its tokens, and are what the slot sees during it: hidden(t) is the mean of their slot inputs, but
// for the text's first token, as an observation has it.
//
// The layers below the slot run once (read()); candidates share their result, several go through
// the layers above together. The figures are those of a run with the memory alone, bit for bit up
// to the sums over the vocabulary, whatever else is in the batch (row-invariant backends).
//
// Memory:  bytes(): a few kB for each token of the text and each candidate of a batch.
// Errors:  read(): kInvalidArgument (fewer than 2 tokens, beyond the context, ids outside the
//          vocabulary, steps that do not cover the text), kNoSpace. score(): kCorruption where
//          figures are not finite, kNoSpace.
// Threads: one; it holds the compute gate by slices.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generator/gains/upper_layers.h"
#include "generator/learn/material.h"
#include "generator/slot/slot.h"

namespace memslot {

// Of one candidate; one number a step, but for token_nll.
struct GainFigures {
  std::vector<float> surprise, entropy, activation;
  std::vector<float> token_nll;  // of every predicted token
};

class GainScorer {
 public:
  // Rows of a batch: as many candidates as that, at least one.
  static constexpr std::int64_t kBatchRows = 2048;

  // `steps`: the numbers of tokens of the steps, in order; together T - 1.
  static Result<GainScorer> read(Gpt& gpt, std::size_t slot, std::vector<std::int32_t> ids,
                                 std::vector<std::int32_t> steps, GateSlices& gate);

  // How many candidates one score() call takes at best.
  std::int64_t batch() const { return batch_; }
  std::int64_t steps() const { return std::ssize(steps_); }
  // (steps, D): mean slot input over a step's rows; zeros where only the first token is in it.
  const std::vector<float>& hidden() const { return hidden_; }

  // Null: base. REQUIRES: at most batch() candidates.
  Result<std::vector<GainFigures>> score(
      std::span<const std::shared_ptr<const LoadedMemory>> candidates, GateSlices& gate);

  std::size_t bytes() const;

 private:
  GainScorer(Gpt& gpt, std::size_t slot);
  std::int64_t rows() const { return std::ssize(targets_); }
  void keep_hidden();
  // Writes base's slot output for all rows.
  void keep_base(GateSlices& gate);
  void run_slot(const std::shared_ptr<const LoadedMemory>& memory, Matrix x,
                std::vector<float>& activation, GateSlices& gate);

  Gpt* gpt_;
  std::size_t slot_;
  Material material_;
  std::vector<std::int32_t> steps_, targets_;
  std::vector<float> hidden_;
  std::vector<float> base_;  // (rows, D): base's slot output
  SessionSlot runner_;
  UpperLayers upper_;
  std::int64_t batch_ = 1;
};

}  // namespace memslot
