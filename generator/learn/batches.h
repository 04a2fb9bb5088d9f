#pragma once
// Which rows of a source's material each training step reads.
//
//   cumulative  the whole text in one causal pass, every token counted once. That is the layout
//   exactly:
//               sample k is segments 1..k with the loss on segment k alone, and under a causal mask
//               the rows of segment k are the same in every sample that contains it, so one pass
//               over the text gives all samples' losses and gradients together.
//   overlap     windows read without what precedes them, each a sequence of its own, in a shuffled
//               rotation; a step takes about as many tokens as the text has.
// `alone_share` mixes them: that share of a step's tokens are windows read alone (overlap: all of
// them). A window's first kLead tokens are read, not counted, but for the text's own beginning:
// without context they cannot be known, and the window before counts them.
//
// Threads: one at a time.
#include <cstdint>
#include <vector>

#include "generator/learn/learner.h"
#include "generator/learn/material.h"
#include "generator/learn/segments.h"

namespace memslot {

class Batches {
 public:
  static constexpr std::int64_t kLead = 4;

  // Material: sequence 0 is the whole text, sequence 1 + i is window i.
  Batches(const Material& material, std::vector<TokenRange> windows, const LearnConfig& config);

  struct Batch {
    std::vector<std::size_t> sequences;  // of the material
    LossRows rows;
    bool whole = false;  // sequence 0 comes first: recall can be read off
  };
  Batch next();
  std::int64_t max_rows() const { return max_rows_; }

 private:
  std::size_t draw();
  void add(std::size_t sequence, Batch& batch) const;

  const Material& material_;
  std::vector<TokenRange> windows_;
  std::uint64_t seed_;
  std::int64_t text_rows_, window_budget_ = 0, max_rows_ = 0;
  bool whole_;
  std::vector<std::size_t> order_;
  std::size_t used_ = 0;
  std::uint64_t epoch_ = 0;
};

}  // namespace memslot
