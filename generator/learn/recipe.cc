#include "generator/learn/recipe.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace memslot {

LearnConfig with_defaults(LearnConfig config) {
  const bool mlp = config.kind == MemoryKind::kMlp;
  const bool overlap = config.segments == SegmentLayout::kOverlap;
  // Found on the sample sources with the development half of the control passages
  // (tests/bench/recipe_report.cc; figures in docs/performance.md). `memslot learn --help` names
  // them.
  if (config.lr == 0) config.lr = mlp ? 2e-3f : 1e-2f;
  if (config.max_steps == 0) config.max_steps = mlp ? 64 : 96;
  if (config.anchor < 0) config.anchor = mlp ? 8e-4f : 3e-3f;
  if (config.alone_share < 0) config.alone_share = overlap ? 1.0f : mlp ? 0.4f : 0.6f;
  return config;
}

float learning_rate(const LearnConfig& config, int step) {
  const float warmup = std::max(1.0f, config.warmup_share * static_cast<float>(config.max_steps));
  const auto at = static_cast<float>(step);
  if (at < warmup) return config.lr * at / warmup;
  const float left = static_cast<float>(config.max_steps) - warmup;
  const float done = left <= 0 ? 1.0f : std::min(1.0f, (at - warmup) / left);
  const float cosine = 0.5f * (1.0f + std::cos(std::numbers::pi_v<float> * done));
  return config.lr * (0.1f + 0.9f * cosine);
}

}  // namespace memslot
