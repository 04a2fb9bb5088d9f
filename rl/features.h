#pragma once
// What a learned policy sees of a step: one row of numbers for each candidate, the step's own
// numbers repeated in every row. The order and meaning of the columns are a version of their own: a
// policy runs only on the version that it was trained on.
//
// Scales are chosen so that ordinary values lie within a few units; counts enter as logarithms.
// Nothing here depends on a clock, and nothing on the order of the candidates.
//
// Threads: pure functions.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "rl/selection_policy.h"

namespace memslot {

inline constexpr std::uint32_t kFeatureVersion = 2;

struct FeatureInfo {
  std::string_view name;
  std::string_view meaning;
  // Not varied by streams made from a gain table: its weights begin at zero, so that a policy that
  // never saw it move does not answer to it at random in a live session.
  bool live = false;
};
// Version 1, in the order of the columns. F is its size.
std::span<const FeatureInfo> feature_table();
std::uint32_t feature_count();

// Appends K rows of F values to `out`. A number that is not finite stays so: finite() finds it.
// REQUIRES: candidates not empty.
void append_features(const StepContext& step, std::span<const Candidate> candidates,
                     std::vector<float>& out);

bool all_finite(std::span<const float> values);

}  // namespace memslot
