#pragma once
// From a dataset to its gain table, by a running pair: memories are learned by ordinary jobs,
// streams scored by `gains` tasks, as many at once as there are generators.
//
//   memories   one whose id is in the bank already, of this model and kind, is taken as it is (the
//              id is a digest of text, model and configuration)
//   candidates of a stream: all memories; or, where there are more than `candidates`, the generic
//              ones, those of the sources that occur in it, and for the rest those nearest to its
//              steps, in turns (what a controller would offer)
//   rows       are kept in `folder` as soon as a stream is finished; a run that was ended goes on
//              from there
//
// Errors:  of the pair and its tasks, of files; kMismatch where a job made no such memory.
// Threads: one; it starts a few.
#include <functional>
#include <string>

#include "rl/gains/side_by_side.h"
#include "rl/streams.h"

namespace memslot::gains_program {

struct TableOptions {
  std::string kind = "lora";
  std::size_t candidates = 64;  // of a stream, the generic ones among them; 0: all
  std::uint32_t slot = 0;
  std::string folder;  // of finished rows
};

Result<GainTable> make_table(Pair& pair, const StreamSet& set, const TableOptions& options,
                             const OnProgress& tell);

// The places of a stream's candidates, ascending: `must`, then the memories whose best key is
// nearest to its steps, rank by rank. similar(step, memory): the higher, the nearer.
std::vector<std::uint32_t> nearest_candidates(
    std::size_t memories, std::size_t steps, std::size_t count, std::vector<std::uint32_t> must,
    const std::function<float(std::size_t step, std::size_t memory)>& similar);

}  // namespace memslot::gains_program
