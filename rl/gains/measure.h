#pragma once
// What schedules are worth in mode `activated` (docs/formats/training.md, "Schedules"): a session
// follows each, and its log-probabilities are held against a base run's. A gain table cannot tell:
// what a swap leaves in the cache depends on what was active before.
//
// Errors:  kInvalidArgument (a stream whose steps are not all full), kCorruption (a file that is
//          not what it should be), kNotFound (a stream that the dataset lacks); of files, the pair.
// Threads: one; it starts a few.
#include <cstddef>
#include <string>

#include "rl/gains/side_by_side.h"

namespace memslot::gains_program {

struct MeasureFiles {
  std::string dataset;    // TABLE.streams.json (docs/formats/streams.md)
  std::string schedules;  // one JSON object a line: stream, first, actions
  std::string out;        // the same lines with `gain`, and `of`: a digest of all that was measured
};

// Lines are kept in `out` as soon as they are measured; a run that was ended goes on from there.
// The number of lines.
Result<std::size_t> measure_schedules(Pair& pair, const MeasureFiles& files,
                                      const OnProgress& tell);

}  // namespace memslot::gains_program
