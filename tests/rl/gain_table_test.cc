#include "rl/gain_table.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "tests/rl/synthetic_table.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

GainTable small() {
  return testing_support::SyntheticTable({.train = 2,
                                          .validation = 1,
                                          .test = 1,
                                          .uncovered = 1,
                                          .memories_each = 1,
                                          .streams_each = 1,
                                          .dim = 4})
      .take();
}

TEST(GainTable, IsReadBackAsItWasWritten) {
  testing_support::TemporaryFolder folder;
  const GainTable table = small();
  ASSERT_TRUE(table.save(folder.path() + "/t"));
  const auto read = GainTable::load(folder.path() + "/t");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().bytes(), table.bytes());
  EXPECT_EQ(read.value().streams[1].steps.size(), table.streams[1].steps.size());
}

TEST(GainTable, CutOffAnywhereItIsCorrupt) {
  const std::string whole = small().bytes();
  for (std::size_t n = 0; n < whole.size(); n += n < 64 ? 1 : 97) {
    const auto read = GainTable::parse(whole.substr(0, n));
    ASSERT_FALSE(read) << n;
    EXPECT_EQ(read.error().code, ErrorCode::kCorruption) << n;
  }
}

TEST(GainTable, WhatDisagreesIsCorruptAndNamed) {
  const auto refused = [](auto change, const char* named) {
    GainTable table = small();
    change(table);
    const auto read = GainTable::parse(table.bytes());
    ASSERT_FALSE(read) << named;
    EXPECT_EQ(read.error().code, ErrorCode::kCorruption);
    EXPECT_NE(read.error().message.find(named), std::string::npos) << read.error().message;
  };
  refused([](GainTable& t) { t.gain.values[3] = std::numeric_limits<float>::quiet_NaN(); },
          "finite");
  refused([](GainTable& t) { t.hidden.values[0] = std::numeric_limits<float>::infinity(); },
          "finite");
  refused([](GainTable& t) { t.memories.pop_back(); }, "tensors");
  refused([](GainTable& t) { t.memories[0].keys = 1000; }, "memory default/s0-0@1");
  refused([](GainTable& t) { t.memories[0].source = 99; }, "memory default/s0-0@1");
  refused([](GainTable& t) { t.streams[1].first = 1'000'000; }, "stream s1.0");
  refused([](GainTable& t) { t.streams[1].steps[0].source = 99; }, "stream s1.0");
  refused([](GainTable& t) { t.generic = {77}; }, "generic");
}

TEST(GainTable, WhatWasNotScoredOnAStreamIsSaidInTheFile) {
  GainTable table = small();
  table.generic = {1};
  table.streams[0].scored = {0, 1};
  const auto read = GainTable::parse(table.bytes());
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(read.value().streams[0].has(1));
  EXPECT_FALSE(read.value().streams[0].has(2));
  EXPECT_TRUE(read.value().streams[1].has(2));
  const std::vector<std::uint32_t> bad[] = {{1, 0}, {1, 1}, {1, 99}, {0, 2}};
  for (const auto& scored : bad) {
    table.streams[0].scored = scored;
    const auto refused = GainTable::parse(table.bytes());
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("scored memories"), std::string::npos);
  }
}

TEST(GainTable, TheFirstFormatIsReadToo) {
  std::string bytes = small().bytes();
  const std::size_t at = bytes.find("memslot-gains-2");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 14] = '1';
  EXPECT_TRUE(GainTable::parse(bytes));
  bytes[at + 14] = '3';
  ASSERT_FALSE(GainTable::parse(bytes));
  EXPECT_NE(GainTable::parse(bytes).error().message.find("memslot-gains-3"), std::string::npos);
}

TEST(GainTable, TheGenericGainIsTheMeanOfOthersAndNeverNegative) {
  GainTable t = small();
  t.generic = {0, 1};
  const std::size_t m = t.memories.size();
  t.gain.values[0 * m + 0] = 0.5f;
  t.gain.values[0 * m + 1] = 0.1f;
  EXPECT_FLOAT_EQ(t.generic_of(0, -1), 0.3f);
  EXPECT_FLOAT_EQ(t.generic_of(0, t.memories[0].source), 0.1f);
  t.gain.values[0 * m + 1] = -0.7f;
  EXPECT_EQ(t.generic_of(0, -1), 0.0f);
}

TEST(GainTable, GenericMemoriesAreDrawnFromTrainingSourcesOnly) {
  const GainTable t = testing_support::SyntheticTable().take();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto drawn = draw_generic(t, 8, seed);
    EXPECT_EQ(drawn.size(), 8u);
    EXPECT_EQ(std::set<std::uint32_t>(drawn.begin(), drawn.end()).size(), 8u);
    for (const std::uint32_t m : drawn) {
      EXPECT_EQ(t.sources[static_cast<std::size_t>(t.memories[m].source)].split, Split::kTrain);
    }
  }
}

}  // namespace
}  // namespace memslot
