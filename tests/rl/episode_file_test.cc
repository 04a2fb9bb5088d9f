#include "rl/episode_file.h"

#include <gtest/gtest.h>

#include "tests/rl/episodes.h"

namespace memslot {
namespace {

constexpr std::uint32_t kKeyDim = 3;

Episode some_episode() {
  Episode out = testing_support::random_episode(4, 5, kKeyDim);
  out.snapshot = 12;
  out.steps[1].query.clear();
  out.steps[1].keys.clear();
  out.steps[2].trains = false;
  return out;
}

TEST(EpisodeFile, IsReadBackBitForBit) {
  const Episode saved = some_episode();
  const std::string bytes = episode_bytes(saved, feature_count(), kKeyDim);
  const auto read = parse_episode(bytes, feature_count(), kKeyDim);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(episode_bytes(read.value(), feature_count(), kKeyDim), bytes);
  EXPECT_EQ(read.value().snapshot, 12u);
  EXPECT_TRUE(read.value().steps[1].query.empty());
  EXPECT_FALSE(read.value().steps[2].trains);
  EXPECT_EQ(read.value().steps[3].keys, saved.steps[3].keys);
}

TEST(EpisodeFile, CutOffOrOfOtherSizesItIsCorrupt) {
  const std::string bytes = episode_bytes(some_episode(), feature_count(), kKeyDim);
  for (std::size_t n = 0; n < bytes.size(); n += 7) {
    EXPECT_EQ(parse_episode(bytes.substr(0, n), feature_count(), kKeyDim).error().code,
              ErrorCode::kCorruption)
        << n;
  }
  EXPECT_EQ(parse_episode(bytes, feature_count() + 1, kKeyDim).error().code,
            ErrorCode::kCorruption);
  EXPECT_EQ(parse_episode(bytes, feature_count(), kKeyDim + 1).error().code,
            ErrorCode::kCorruption);
}

TEST(EpisodeFile, WithNumbersThatAreNotFiniteItIsCorrupt) {
  Episode bad = some_episode();
  bad.steps[0].reward = std::numeric_limits<float>::quiet_NaN();
  const std::string bytes = episode_bytes(bad, feature_count(), kKeyDim);
  EXPECT_EQ(parse_episode(bytes, feature_count(), kKeyDim).error().code, ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot
