#pragma once
// What the frozen layers give for a text, computed once: the residual stream before the slot's MLP
// and the slot's input (after the norm). Training and measuring start from here.
//
// Errors:  kNoSpace; what Gpt::forward answers.
// Threads: one at a time.
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "generator/learn/upper_stack.h"
#include "generator/model/gpt.h"

namespace memslot {

// Computes y (rows, D) f32 from x (rows, D): base, a memory under training, or a loaded one.
using SlotOutput = std::function<void(ConstMatrix x, Matrix y)>;

struct Material {
  std::vector<std::vector<std::int32_t>> tokens;  // per sequence
  Buffer residual;                                // f32 [rows, D], sequences one after the other
  Buffer input;                                   // activations [rows, D]
  std::int64_t rows = 0, d_model = 0;
  DType dtype = DType::kF32;  // of input

  Matrix residual_rows(std::int64_t first, std::int64_t count) const;
  Matrix input_rows(std::int64_t first, std::int64_t count) const;
  std::size_t bytes() const { return residual.bytes() + input.bytes(); }

  // Reads every sequence from position 0 with base in every slot, a few tokens at a time. `slot` is
  // the index of the slot whose input is kept.
  static Result<Material> read(Gpt& gpt, std::size_t slot,
                               std::vector<std::vector<std::int32_t>> tokens, GateSlices& gate);
};

// The rows of some of its sequences, every next token counted with equal weight.
LossRows all_rows(const Material& material, std::size_t first_sequence, std::size_t count);

// Losses of the rows of the first `sequences` with `output` at the slot, in groups of whole
// sequences.
Result<RowLosses> measure(const Material& material, std::size_t sequences, UpperStack& stack,
                          Gpt& gpt, const SlotOutput& output, GateSlices& gate);

// Mean NLL of what measure() gave for `sequences`, nats per token.
double mean_nll(const RowLosses& losses, std::size_t sequences);
// Top-1 share over a sequence's tokens from index `first_target` on; `row` is its first row.
double recall(std::span<const std::int32_t> tokens, std::span<const std::int32_t> argmax,
              std::int64_t first_target);

inline constexpr std::int64_t kRecallSkip = 16;  // the first tokens, which nothing precedes

}  // namespace memslot
