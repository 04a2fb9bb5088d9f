#include "generator/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "shared/base/rng.h"

namespace memslot {
namespace {

// Of the full distribution; z_i = logits_i - max.
struct Softmax {
  std::int32_t argmax = 0;
  double max = 0;
  double log_sum = 0;  // log sum exp(z_i)
  double entropy = 0;  // log_sum - sum p_i z_i

  double log_prob(double logit) const { return logit - max - log_sum; }
};

Result<Softmax> softmax(std::span<const float> logits) {
  if (logits.empty()) return invalid("logits", "at least one", "none");
  Softmax s;
  float best = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return corrupt("logit " + std::to_string(i), "a finite number or -infinity", logits[i]);
    }
    if (logits[i] > best) {  // strictly: ties keep the lowest id
      best = logits[i];
      s.argmax = static_cast<std::int32_t>(i);
    }
  }
  if (std::isinf(best)) return corrupt("largest logit", "a finite number", "-infinity");
  s.max = static_cast<double>(best);
  double sum = 0, weighted = 0;
  for (const float logit : logits) {
    const double z = static_cast<double>(logit) - s.max, e = std::exp(z);
    sum += e;
    if (e > 0) weighted += e * z;  // -infinity contributes nothing
  }
  s.log_sum = std::log(sum);
  s.entropy = std::max(0.0, s.log_sum - weighted / sum);
  return s;
}

Sampled answer(std::span<const float> logits, const Softmax& s, std::int32_t token) {
  return {token, s.log_prob(static_cast<double>(logits[static_cast<std::size_t>(token)])),
          s.entropy};
}

// Ids from most to least likely, ties by id: the first top_k, or as many as can matter for top_p.
std::vector<std::int32_t> ranked(std::span<const float> logits, const SamplingSettings& settings) {
  std::vector<std::int32_t> ids;
  ids.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isinf(logits[i])) ids.push_back(static_cast<std::int32_t>(i));
  }
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const auto k = settings.top_k == 0
                     ? ids.size()
                     : std::min(ids.size(), static_cast<std::size_t>(settings.top_k));
  const auto middle = ids.begin() + static_cast<std::ptrdiff_t>(k);
  if (k < ids.size()) {
    std::partial_sort(ids.begin(), middle, ids.end(), before);
    ids.erase(middle, ids.end());
  } else if (settings.top_p < 1.0) {
    std::sort(ids.begin(), ids.end(), before);
  }  // else every id is kept, and any fixed order will do: by id
  return ids;
}

// Weights exp((logit - max) / temperature) of the ids, cut where their mass reaches top_p.
std::vector<double> nucleus(std::span<const float> logits, const SamplingSettings& settings,
                            double max, std::span<const std::int32_t> ids) {
  std::vector<double> weights;
  weights.reserve(ids.size());
  double total = 0;
  for (const auto id : ids) {
    weights.push_back(std::exp((static_cast<double>(logits[static_cast<std::size_t>(id)]) - max) /
                               settings.temperature));
    total += weights.back();
  }
  if (settings.top_p >= 1.0) return weights;
  double mass = 0;
  std::size_t kept = 0;
  while (kept < weights.size() && (kept == 0 || mass < settings.top_p * total))
    mass += weights[kept++];
  weights.resize(kept);
  return weights;
}

std::size_t draw(std::span<const double> weights, double u) {
  double total = 0;
  for (const double w : weights) total += w;
  double below = 0;
  std::size_t last = 0;  // of positive weight: rounding must not end on one that is impossible
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    below += weights[i];
    last = i;
    if (u * total < below) break;
  }
  return last;
}

}  // namespace

Status check_sampling(const SamplingSettings& s) {
  if (!(s.temperature >= 0) || std::isinf(s.temperature))
    return invalid("temperature", "0 or more", s.temperature);
  if (s.top_k < 0) return invalid("top_k", "0 (off) or more", s.top_k);
  if (!(s.top_p > 0 && s.top_p <= 1)) return invalid("top_p", "above 0, at most 1", s.top_p);
  return ok();
}

Result<Sampled> sample(std::span<const float> logits, const SamplingSettings& settings,
                       std::uint64_t stream, std::uint64_t position) {
  MEMSLOT_TRY(check_sampling(settings));
  MEMSLOT_TRY(const auto s, softmax(logits));
  if (settings.temperature == 0) return answer(logits, s, s.argmax);
  const auto ids = ranked(logits, settings);
  const auto weights = nucleus(logits, settings, s.max, ids);
  return answer(logits, s, ids[draw(weights, uniform01(settings.seed, stream, position))]);
}

Result<Sampled> score(std::span<const float> logits, std::int32_t token) {
  MEMSLOT_TRY(const auto s, softmax(logits));
  if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) {
    return invalid("token id", "0 to " + std::to_string(logits.size() - 1), token);
  }
  return answer(logits, s, token);
}

}  // namespace memslot
