#pragma once
// What a learn job may ask for: one JSON object, checked where the job is submitted and again where
// it is learned. What the numbers do: generator/learn/learner.h and recipe.h.
//
// Threads: values; pure functions.
#include <cstdint>
#include <string>
#include <string_view>

#include "shared/memory/kind.h"
#include "shared/tensor/dtype.h"

namespace memslot {

enum class SegmentLayout : std::uint8_t { kOverlap = 1, kCumulative = 2 };

struct LearnConfig {
  MemoryKind kind = MemoryKind::kMlp;  // kMlp, kLora or kDelta; to the last only `layer` matters
  SegmentLayout segments = SegmentLayout::kCumulative;
  int window_words = 32;
  int stride_words = 16;
  int layer = -1;     // -1: the generator's first slot
  int rank = 16;      // lora
  float alpha = 16;   // lora
  float lr = 0;       // 0: the kind's default
  int max_steps = 0;  // 0: the kind's default
  float warmup_share = 0.1f;
  float target_recall = 0.99f;  // stop once reached (checked every few steps)
  float anchor = -1;            // weight; negative: the kind's default; 0: none
  float alone_share = -1;       // of a step's tokens: windows read without what precedes them,
                                // as a prompt is; negative: the layout's default
  float weight_decay = 0;
  DType dtype = DType::kBF16;  // of the stored payload
  std::uint64_t seed = 1;
};

// JSON object with these names ("segments": "overlap", ...); "" is an empty one. Defaults fill what
// is absent. kInvalidArgument: unknown names, values out of range, not finite, or so small that
// they would be read as 0.
Result<LearnConfig> learn_config_from_json(std::string_view json);
std::string to_json(const LearnConfig& config);

}  // namespace memslot
