#pragma once
// The default recipe of each kind and layout, where a LearnConfig leaves a number open.
//
// How they were found, and what else was tried: docs/decisions/0006-learning-recipes.md.
// Threads: pure functions.
#include "generator/learn/learner.h"

namespace memslot {

// Every open number filled in. REQUIRES: kind kMlp or kLora.
LearnConfig with_defaults(LearnConfig config);

// The rate of step `step` (from 1) of `max_steps`: linear warm-up, then a cosine down to a tenth.
float learning_rate(const LearnConfig& config, int step);

inline constexpr float kBeta1 = 0.9f;
inline constexpr float kBeta2 = 0.95f;

}  // namespace memslot
