#pragma once
// The frozen layers above a slot, forward only, for several readings of one text at once: the same
// tokens with another memory in the slot each.
//
//   x = residual + slot(norm(residual));  layers l+1 .. L-1;  norm;  log-sum-exp over the outputs
//
// Rows of all readings go through the linear maps together; attention is each reading's own. Every
// operation is the model's own, so a row's bits are those of a run with this memory alone
// (row-invariant backends). Row counts are padded to a multiple of kRowBlock and cut at kChunkRows,
// so that texts of any length meet a handful of matrix shapes.
//
// Memory:  O(rows) activations, one layer's keys and values; no (rows, V) logits, but a block of
//          kChunkRows rows and kBlockOutputs outputs at a time.
// Errors:  reserve(): kNoSpace.
// Threads: one at a time; the compute gate is given back between chunks.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generator/learn/gate_slices.h"
#include "generator/learn/workspace.h"
#include "generator/model/gpt.h"

namespace memslot {

class UpperLayers {
 public:
  static constexpr std::int64_t kRowBlock = 64;
  static constexpr std::int64_t kChunkRows = 128;
  static constexpr std::int64_t kBlockOutputs = 512;

  // `layer`: the slot's.
  UpperLayers(Gpt& gpt, int layer) : gpt_(gpt), layer_(layer), space_(gpt.backend()) {}

  // Room for `readings` of `length` tokens each.
  Status reserve(std::int64_t readings, std::int64_t length);

  // The residual stream that enters, (padded rows, D) f32; reading r has rows [r length, (r + 1)
  // length). The caller writes it.
  Matrix input(std::int64_t readings, std::int64_t length) const;

  // Runs input() through. `targets` are the text's next tokens (length), the same for every
  // reading; sums: (readings * length).
  void run(std::int64_t readings, std::span<const std::int32_t> targets, std::span<SoftmaxRow> sums,
           GateSlices& gate);

  std::size_t bytes() const { return space_.bytes(); }

 private:
  std::vector<AttentionSpan> spans(std::int64_t readings, std::int64_t length) const;
  void attend(int layer, Matrix x, const std::vector<AttentionSpan>& spans, GateSlices& gate);
  void feed_forward(int layer, Matrix x, GateSlices& gate);
  void fold(Matrix x, std::span<const std::int32_t> targets, std::span<SoftmaxRow> sums,
            GateSlices& gate);
  Status slice_output();

  struct OutputBlock {
    std::int64_t first = 0;
    std::shared_ptr<const PackedWeight> map;
  };

  Gpt& gpt_;
  int layer_;
  Workspace space_;
  std::vector<OutputBlock> output_;  // all outputs, in order
};

}  // namespace memslot
