#pragma once
// Many tasks of one pair, as many at once as it has generators.
//
// Errors:  kUnavailable (no generator); the first error of `fn`, which ends the others' waiting.
// Threads: fn runs on several; tell on one at a time.
#include <functional>
#include <string>

#include "rl/gains/pair.h"

namespace memslot::gains_program {

struct Progress {
  const char* phase = "";  // "learning", "ranking", "scoring", "measuring"
  std::size_t done = 0, all = 0;
  std::string what;  // what was finished last
};
using OnProgress = std::function<void(const Progress&)>;

Result<std::size_t> generators_of(Pair& pair);

// fn(i) for i < count; it gives the name of what it finished.
Status side_by_side(Pair& pair, std::size_t generators, const char* phase, std::size_t count,
                    const std::function<Result<std::string>(std::size_t)>& fn,
                    const OnProgress& tell);

}  // namespace memslot::gains_program
