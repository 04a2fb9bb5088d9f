#include "rl/features.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace memslot {
namespace {

constexpr FeatureInfo kTable[] = {
    {"is_base", "1 for base"},
    {"is_current", "1 for what was active in the previous step"},
    {"resident", "1 if the generator holds it", true},
    {"best_key", "cosine of the whitened query with the nearest key; base: 0"},
    {"mean_key", "cosine with the mean of the keys; base: 0"},
    {"best_key_lead", "best_key minus the highest best_key of the other memories; base: minus it"},
    {"mean_key_lead", "the same of mean_key"},
    {"long_key", "best_key of the query over the longer window; base: 0"},
    {"long_key_lead", "its lead"},
    {"past_net_gain", "mean over past uses, nats per token, cut at -4 and 4; 0 if none", true},
    {"uses", "ln(1 + uses) / 8", true},
    {"age", "ln(1 + publishes since its own) / 8", true},
    {"is_mlp", "1 for kind mlp", true},
    {"is_lora", "1 for kind lora"},
    {"swap_cost", "nats per token", true},
    {"entropy", "of the previous step, nats / 4"},
    {"surprise", "of the previous step, nats / 4"},
    {"steps_since_swap", "ln(1 + steps) / 4"},
    {"has_query", "1 once there is a hidden summary"},
    {"current_is_base", "1 if base was active in the previous step"},
};

constexpr float kMostGain = 4.0f, kCountScale = 8.0f, kNatScale = 4.0f;

// The highest value of the memories, and the highest but for that one.
struct TopTwo {
  float first = 0, second = 0;
  std::size_t at = 0;
};

TopTwo top_two(std::span<const Candidate> candidates, float Candidate::*value) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  TopTwo top{kLowest, kLowest, 0};
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].is_base) continue;
    const float v = candidates[i].*value;
    if (v > top.first) {
      top = {v, top.first, i};
    } else {
      top.second = std::max(top.second, v);
    }
  }
  return top;
}

float lead(const TopTwo& top, std::size_t i, const Candidate& c, float Candidate::*value) {
  const float other = !c.is_base && i == top.at ? top.second : top.first;
  const float own = c.is_base ? 0.0f : c.*value;
  return std::isinf(other) ? own : own - other;  // no other memory: ahead of nothing
}

float log_count(double count, float scale) { return static_cast<float>(std::log1p(count)) / scale; }

float flag(bool value) { return value ? 1.0f : 0.0f; }

}  // namespace

std::span<const FeatureInfo> feature_table() { return kTable; }

std::uint32_t feature_count() { return static_cast<std::uint32_t>(std::size(kTable)); }

void append_features(const StepContext& step, std::span<const Candidate> candidates,
                     std::vector<float>& out) {
  MEMSLOT_CHECK(!candidates.empty());
  const TopTwo best = top_two(candidates, &Candidate::best_key);
  const TopTwo mean = top_two(candidates, &Candidate::mean_key);
  const TopTwo longer = top_two(candidates, &Candidate::long_key);
  const bool current_is_base = std::any_of(candidates.begin(), candidates.end(),
                                           [](const auto& c) { return c.is_base && c.is_current; });
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    const float row[] = {
        flag(c.is_base),
        flag(c.is_current),
        flag(c.resident),
        c.is_base ? 0.0f : c.best_key,
        c.is_base ? 0.0f : c.mean_key,
        lead(best, i, c, &Candidate::best_key),
        lead(mean, i, c, &Candidate::mean_key),
        c.is_base ? 0.0f : c.long_key,
        lead(longer, i, c, &Candidate::long_key),
        std::clamp(c.past_net_gain, -kMostGain, kMostGain),
        log_count(c.uses, kCountScale),
        log_count(static_cast<double>(c.age), kCountScale),
        flag(!c.is_base && c.kind == MemoryKind::kMlp),
        flag(!c.is_base && c.kind == MemoryKind::kLora),
        c.swap_cost,
        step.entropy / kNatScale,
        step.surprise / kNatScale,
        log_count(step.steps_since_swap, kNatScale),
        flag(!step.query.empty()),
        flag(current_is_base),
    };
    static_assert(std::size(row) == std::size(kTable));
    out.insert(out.end(), std::begin(row), std::end(row));
  }
}

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace memslot
