// Question: how long does one decision of the learned policy take (features, forward, sample)?
// Budget:   under 150 us at the median with 32 candidates.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "rl/features.h"
#include "rl/reinforce.h"
#include "shared/base/rng.h"

namespace memslot {
namespace {

constexpr std::uint32_t kReduced = 96;

std::vector<float> unit(std::uint64_t number) {
  std::vector<float> out(kReduced);
  for (std::uint32_t j = 0; j < kReduced; ++j) {
    out[j] = static_cast<float>(0.2 * (uniform01(3, number, j) - 0.5));
  }
  return out;
}

int run(int argc, char** argv) {
  const std::size_t k = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 32;
  MEMSLOT_CHECK(k >= 1);
  const Checkpoint checkpoint =
      ReinforceLearner::make({.features = feature_count(), .key_dim = kReduced}, {})
          .value()
          ->checkpoint(false);
  const auto policy = make_learned_policy(checkpoint).value();
  std::vector<std::vector<float>> keys;
  std::vector<Candidate> candidates(k);
  candidates[0].is_base = true;
  for (std::size_t i = 1; i < k; ++i) keys.push_back(unit(i));
  for (std::size_t i = 1; i < k; ++i) {
    candidates[i].key = keys[i - 1];
    candidates[i].best_key = keys[i - 1][0];
  }
  const auto query = unit(1000);
  std::vector<double> took;
  std::size_t chosen = 0;
  for (std::uint64_t step = 0; step < 20'000; ++step) {
    const StepContext context{
        .session = 1, .step = step, .seed = 5, .query = query, .explore = true};
    const auto begin = std::chrono::steady_clock::now();
    chosen += policy->choose(context, candidates).index;
    took.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
            .count());
  }
  MEMSLOT_CHECK(chosen > 0 || k == 1);
  std::sort(took.begin(), took.end());
  std::printf("{\"candidates\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", k, took[took.size() / 2],
              took[took.size() * 99 / 100]);
  return 0;
}

}  // namespace
}  // namespace memslot

int main(int argc, char** argv) { return memslot::run(argc, argv); }
