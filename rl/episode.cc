#include "rl/episode.h"

#include <algorithm>
#include <cmath>

#include "rl/features.h"

namespace memslot {

EpisodeStep step_of(const StepContext& context, std::span<const Candidate> candidates,
                    std::uint32_t key_dim) {
  EpisodeStep out;
  out.candidates = static_cast<std::uint32_t>(candidates.size());
  append_features(context, candidates, out.features);
  if (context.query.size() != key_dim) return out;
  out.query.assign(context.query.begin(), context.query.end());
  out.keys.assign(candidates.size() * key_dim, 0.0f);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto key = candidates[i].key;
    if (key.size() != key_dim) continue;
    std::copy(key.begin(), key.end(), out.keys.begin() + static_cast<std::ptrdiff_t>(i * key_dim));
  }
  return out;
}

Status check_step(const EpisodeStep& step, std::size_t at, std::uint32_t features,
                  std::uint32_t key_dim) {
  const auto where = "episode step " + std::to_string(at) + ": ";
  const std::size_t k = step.candidates;
  if (k == 0) return invalid(where + "candidates", "at least 1", "0");
  if (step.action >= k) {
    return invalid(where + "action", "less than " + std::to_string(k), std::to_string(step.action));
  }
  if (step.features.size() != k * features) {
    return invalid(where + "features", std::to_string(k * features),
                   std::to_string(step.features.size()));
  }
  if (!step.query.empty() && step.query.size() != key_dim) {
    return invalid(where + "query", std::to_string(key_dim), std::to_string(step.query.size()));
  }
  if (!step.keys.empty() && step.keys.size() != k * key_dim) {
    return invalid(where + "keys", std::to_string(k * key_dim), std::to_string(step.keys.size()));
  }
  const bool finite = all_finite(step.features) && all_finite(step.query) &&
                      all_finite(step.keys) && std::isfinite(step.reward) &&
                      std::isfinite(step.log_prob);
  return finite ? ok() : Status(invalid(where + "numbers", "finite ones", "NaN or infinity"));
}

Status check_episode(const Episode& episode, std::uint32_t features, std::uint32_t key_dim) {
  for (std::size_t i = 0; i < episode.steps.size(); ++i) {
    MEMSLOT_TRY(check_step(episode.steps[i], i, features, key_dim));
  }
  return ok();
}

std::vector<float> discounted_returns(const Episode& episode, float gamma) {
  std::vector<float> out(episode.steps.size());
  float sum = 0;
  for (std::size_t i = out.size(); i-- > 0;) {
    sum = episode.steps[i].reward + gamma * sum;
    out[i] = sum;
  }
  return out;
}

std::vector<std::vector<float>> leave_one_out(const std::vector<std::vector<float>>& returns) {
  std::size_t longest = 0;
  for (const auto& row : returns) longest = std::max(longest, row.size());
  std::vector<float> sums(longest, 0.0f), counts(longest, 0.0f);
  for (const auto& row : returns) {
    for (std::size_t t = 0; t < row.size(); ++t) {
      sums[t] += row[t];
      counts[t] += 1.0f;
    }
  }
  std::vector<std::vector<float>> out;
  for (const auto& row : returns) {
    std::vector<float> baseline(row.size(), 0.0f);
    for (std::size_t t = 0; t < row.size(); ++t) {
      if (counts[t] > 1) baseline[t] = (sums[t] - row[t]) / (counts[t] - 1);
    }
    out.push_back(std::move(baseline));
  }
  return out;
}

}  // namespace memslot
