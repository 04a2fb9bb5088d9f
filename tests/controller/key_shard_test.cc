#include "controller/step/key_shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "rl/whitening.h"
#include "shared/base/rng.h"
#include "shared/tensor/dtype.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

constexpr std::uint32_t kRow = 96;

Whitened both(const std::vector<float>& row) { return {row, row}; }

std::vector<std::uint16_t> bf16(std::span<const float> row) {
  std::vector<std::uint16_t> out(row.size());
  convert(row, out);
  return out;
}

// As a shard compares it.
float product(std::span<const float> key, std::span<const float> query) {
  return Bf16Product(query)(bf16(key).data());
}

void put(KeyShard& shard, std::size_t owner, const std::vector<float>& row) {
  shard.set(static_cast<KeyShard::Owner>(owner), bf16(row), row);
}

// Unit vectors of independent directions: the hardest case, no key lies near another.
std::vector<float> unit(std::uint64_t seed, std::uint64_t number) {
  std::vector<float> out(kRow);
  for (std::uint32_t j = 0; j < kRow; ++j) {
    const double u = 1.0 - uniform01(seed, number, 2 * j), v = uniform01(seed, number, 2 * j + 1);
    out[j] = static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  const float norm = std::sqrt(dot(out.data(), out.data(), kRow));
  for (float& x : out) x /= norm;
  return out;
}

std::vector<KeyShard::Owner> exhaustive(const std::vector<std::vector<float>>& keys,
                                        std::span<const float> query, std::size_t k) {
  std::vector<std::pair<float, KeyShard::Owner>> all;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].empty()) continue;
    all.emplace_back(-product(keys[i], query), static_cast<KeyShard::Owner>(i));
  }
  std::sort(all.begin(), all.end());
  std::vector<KeyShard::Owner> out;
  for (std::size_t i = 0; i < std::min(k, all.size()); ++i) out.push_back(all[i].second);
  return out;
}

TEST(KeyShard, ScanningCodesFindsWhatAnExhaustiveSearchDoes) {
  KeyShard shard(kRow, kRow);
  std::vector<std::vector<float>> keys;
  for (std::uint64_t i = 0; i < 6000; ++i) {
    keys.push_back(unit(1, i));
    put(shard, i, keys.back());
  }
  for (std::size_t i = 0; i < 6000; i += 7) {
    shard.erase(static_cast<KeyShard::Owner>(i));
    keys[i].clear();
  }
  ASSERT_EQ(shard.method(), KeyShard::Method::kScan);
  std::size_t same = 0, wanted = 0;
  for (std::uint64_t q = 0; q < 50; ++q) {
    const auto query = unit(2, q);
    const auto truth = exhaustive(keys, query, 32);
    std::vector<KeyShard::Hit> hits;
    shard.search(both(query), 32, hits);
    ASSERT_EQ(hits.size(), 32u);
    for (const KeyShard::Hit& hit : hits) {
      EXPECT_EQ(hit.best, product(keys[hit.owner], query)) << "exact, not coded";
      same += static_cast<std::size_t>(std::count(truth.begin(), truth.end(), hit.owner));
    }
    wanted += truth.size();
  }
  EXPECT_GE(same, wanted * 999 / 1000);
}

// Keys whose first directions are all alike: only the others tell them apart.
TEST(KeyShard, RanksByAllDimensionsWhatTheReducedOnesPropose) {
  constexpr std::uint32_t kWide = 2 * kRow;
  for (const std::size_t scanned : {kScannedKeys, std::size_t{300}}) {
    KeyShard shard(kWide, kRow, scanned);
    const auto wide = [](std::uint64_t owner, std::uint64_t key) {
      std::vector<float> out = unit(1, owner);  // the same for every key of an owner
      const auto own = unit(2, owner * 8 + key);
      out.insert(out.end(), own.begin(), own.end());
      return out;
    };
    for (std::uint64_t i = 0; i < 100; ++i) {
      std::vector<float> white, reduced;
      for (std::uint64_t key = 0; key < 8; ++key) {
        const auto row = wide(i, key);
        white.insert(white.end(), row.begin(), row.end());
        reduced.insert(reduced.end(), row.begin(), row.begin() + kRow);
      }
      shard.set(static_cast<KeyShard::Owner>(i), bf16(white), reduced);
    }
    ASSERT_EQ(shard.method(),
              scanned == kScannedKeys ? KeyShard::Method::kScan : KeyShard::Method::kGraph);
    for (std::uint64_t i = 0; i < 100; i += 9) {
      // As near to its owner in the reduced space as to another one: all dimensions decide, and
      // `best` is that of the key that they name.
      const std::uint64_t other = (i + 50) % 100;
      std::vector<float> query = wide(i, 5);
      const auto a = unit(1, i), b = unit(1, other);
      for (std::uint32_t j = 0; j < kRow; ++j) query[j] = 0.5f * (a[j] + b[j]);
      std::vector<KeyShard::Hit> hits;
      shard.search({query, {query.begin(), query.begin() + kRow}}, 4, hits);
      ASSERT_EQ(hits.size(), 4u);
      EXPECT_EQ(hits[0].owner, i);
      EXPECT_EQ(hits[0].best, product(wide(i, 5), query));
      EXPECT_EQ(hits[1].owner, other);
      EXPECT_EQ(hits[1].best, shard.best_key(hits[1].owner, query)) << "over all of its keys";
    }
  }
}

TEST(KeyShard, AboveTheLimitAGraphFindsTheKeyThatTheQueryIsOf) {
  KeyShard shard(kRow, kRow, /*scanned=*/2500);
  for (std::uint64_t i = 0; i < 4000; ++i) {
    put(shard, i, unit(1, i));
    if (i == 2200) {
      EXPECT_EQ(shard.method(), KeyShard::Method::kScan);
    }
  }
  ASSERT_EQ(shard.method(), KeyShard::Method::kGraph);
  std::size_t right = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    auto query = unit(1, 37 * i);
    const auto noise = unit(3, i);
    for (std::uint32_t j = 0; j < kRow; ++j) query[j] += 0.5f * noise[j];
    std::vector<KeyShard::Hit> hits;
    shard.search(both(query), 8, hits);
    right += !hits.empty() && hits[0].owner == 37 * i ? 1 : 0;
  }
  EXPECT_GE(right, 95u);
}

TEST(KeyShard, ShrinksBackFromTheGraphWhenMostOfItIsGone) {
  KeyShard shard(kRow, kRow, /*scanned=*/2500);
  for (std::uint64_t i = 0; i < 3000; ++i) {
    put(shard, i, unit(1, i));
  }
  for (std::uint64_t i = 0; i < 2900; ++i) shard.erase(static_cast<KeyShard::Owner>(i));
  EXPECT_EQ(shard.method(), KeyShard::Method::kExact);
  EXPECT_EQ(shard.keys(), 100u);
  std::vector<KeyShard::Hit> hits;
  shard.search(both(unit(1, 2950)), 1, hits);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].owner, 2950u);
}

// Scanned and linked: what is restored answers as the original, and goes on as it would.
TEST(KeyShard, IsRestoredFromItsRowsAndItsGraph) {
  const testing_support::TemporaryFolder folder;
  const std::string graph = folder.path() + "/graph";
  for (const std::size_t scanned : {kScannedKeys, std::size_t{300}}) {
    const bool linked = scanned != kScannedKeys;
    KeyShard shard(kRow, kRow, scanned);
    for (std::uint64_t i = 0; i < 900; ++i) put(shard, i, unit(1, i));
    for (KeyShard::Owner i = 0; i < 900; i += 9) shard.erase(i);
    std::vector<KeyShard::Run> runs;
    for (KeyShard::Owner i = 0; i < 900; ++i) {
      if (const auto run = shard.run_of(i)) runs.push_back(*run);
    }
    ASSERT_EQ(runs.size(), 800u);
    if (linked) {
      ASSERT_TRUE(shard.save_graph(graph));
    }
    const auto restored = [&](std::span<const KeyShard::Run> of, const std::string& path) {
      return KeyShard::restore(kRow, kRow, shard.white(), shard.reduced(), of, path, scanned);
    };
    auto again = restored(runs, linked ? graph : "");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again.value().method(), shard.method());
    EXPECT_EQ(again.value().keys(), 800u);
    const auto same = [&] {
      for (std::uint64_t q = 0; q < 40; ++q) {
        std::vector<KeyShard::Hit> a, b;
        shard.search(both(unit(2, q)), 16, a);
        again.value().search(both(unit(2, q)), 16, b);
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
          EXPECT_EQ(a[i].owner, b[i].owner);
          EXPECT_EQ(a[i].best, b[i].best);
        }
      }
    };
    same();
    for (KeyShard::Owner i = 1; i < 900; i += 9) {
      shard.erase(i);
      again.value().erase(i);
    }
    same();

    // Nothing of what is gone is left, in the file of the graph neither.
    const auto of_gone = shard.reduced().first(kRow);
    EXPECT_TRUE(std::ranges::all_of(of_gone, [](float x) { return x == 0; }));
    EXPECT_TRUE(std::ranges::all_of(shard.white().first(kRow), [](auto x) { return x == 0; }));
    if (linked) {
      std::ifstream file(graph, std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      const auto holds = [&](std::uint64_t number) {
        const auto row = unit(1, number);
        const std::string bytes(reinterpret_cast<const char*>(row.data()), kRow * sizeof(float));
        return text.find(bytes) != std::string::npos;
      };
      EXPECT_TRUE(holds(2));
      EXPECT_FALSE(holds(9));
    }

    // What does not fit together is refused.
    auto beyond = runs, twice = runs, empty = runs;
    beyond.back().count = 2000;
    twice.push_back(twice.front());
    empty.front().count = 0;
    for (const auto& bad : {beyond, twice, empty}) EXPECT_FALSE(restored(bad, ""));
    EXPECT_FALSE(
        KeyShard::restore(kRow, kRow, shard.white(), shard.reduced().subspan(1), runs, ""));
    if (linked) {
      const std::span<const KeyShard::Run> fewer(runs.data(), runs.size() - 1);
      EXPECT_FALSE(restored(fewer, graph)) << "linked, but gone";
      EXPECT_FALSE(restored(runs, folder.path() + "/none"));
      std::filesystem::resize_file(graph, std::filesystem::file_size(graph) / 2);
      EXPECT_FALSE(restored(runs, graph));
    }
  }
}

TEST(KeyShard, AKeyOfLengthZeroAndAQueryOfLengthZeroAreAnswered) {
  KeyShard shard(kRow, kRow);
  for (std::uint64_t i = 0; i < 2100; ++i) {
    put(shard, i, std::vector<float>(kRow, 0.0f));
  }
  std::vector<KeyShard::Hit> hits;
  shard.search(both(unit(1, 1)), 5, hits);
  EXPECT_EQ(hits.size(), 5u);
  hits.clear();
  shard.search(both(std::vector<float>(kRow, 0.0f)), 5, hits);
  EXPECT_EQ(hits.size(), 5u);
}

}  // namespace
}  // namespace memslot
