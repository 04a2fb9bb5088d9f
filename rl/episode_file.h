#pragma once
// An episode as bytes, for what must survive a restart before it is learned from: a safetensors
// file with "features" (sum of K, F), "query" and "keys" (rows only where a step has a query; R)
// and "steps" (T, 6): candidates, has query, action, log-probability, reward, trains.
//
// Errors:  parse(): kCorruption.
// Threads: pure functions.
#include <string>

#include "rl/episode.h"

namespace memslot {

// REQUIRES: check_episode() finds nothing.
std::string episode_bytes(const Episode& episode, std::uint32_t features, std::uint32_t key_dim);
Result<Episode> parse_episode(const std::string& bytes, std::uint32_t features,
                              std::uint32_t key_dim);

}  // namespace memslot
