#include <gtest/gtest.h>

#include "controller/session/session_table.h"

namespace memslot {
namespace {

wire::OpenSession request(std::uint64_t session, std::uint64_t incarnation) {
  wire::OpenSession open;
  open.session = session;
  open.incarnation = incarnation;
  return open;
}

TEST(SessionTable, ForgetsAllSessionsOfALostGenerator) {
  SessionTable table;
  ASSERT_TRUE(table.open("a", request(1, 10)));
  ASSERT_TRUE(table.open("a", request(2, 10)));
  ASSERT_TRUE(table.open("b", request(3, 11)));
  EXPECT_EQ(table.drop_peer("a"), 2u);
  EXPECT_FALSE(table.find("a", 1));
  EXPECT_TRUE(table.find("b", 3));
}

TEST(SessionTable, MovesSessionsToTheGeneratorsNewConnection) {
  SessionTable table;
  ASSERT_TRUE(table.open("a", request(1, 10)));
  table.rehome("a", "a2");
  EXPECT_FALSE(table.find("a", 1));
  EXPECT_TRUE(table.find("a2", 1));
  EXPECT_EQ(table.count("a2"), 1u);
}

TEST(SessionTable, FindsAnOpenSessionAgain) {
  SessionTable table;
  EXPECT_TRUE(table.open("a", request(1, 10)).value().made);
  EXPECT_FALSE(table.open("a", request(1, 10)).value().made);
  EXPECT_EQ(table.open("b", request(1, 12)).error().code, ErrorCode::kConflict);
}

TEST(KeyWindow, WeighsSummariesByTheirTokens) {
  KeyWindow window(32);
  EXPECT_TRUE(window.mean().empty());
  window.add(std::vector<float>{1.0f}, 24);
  window.add(std::vector<float>{5.0f}, 8);
  EXPECT_FLOAT_EQ(window.mean()[0], 2.0f);
}

TEST(KeyWindow, ForgetsWhatIsOlderThanItsTokens) {
  KeyWindow window(32);
  for (int i = 0; i < 100; ++i) window.add(std::vector<float>{1000.0f}, 16);
  window.add(std::vector<float>{1.0f}, 16);
  window.add(std::vector<float>{3.0f}, 16);
  EXPECT_FLOAT_EQ(window.mean()[0], 2.0f);
  window.add(std::vector<float>{7.0f}, 500);  // a prompt fills it alone
  EXPECT_FLOAT_EQ(window.mean()[0], 7.0f);
}

TEST(KeyWindow, TakesPartOfAnOlderSummaryWhereItFits) {
  KeyWindow window(32);
  window.add(std::vector<float>{1.0f}, 100);
  window.add(std::vector<float>{5.0f}, 8);  // 24 tokens of the older one are left
  EXPECT_FLOAT_EQ(window.mean()[0], 2.0f);
}

TEST(KeyWindow, GivesAShorterMeanOfWhatItHolds) {
  KeyWindow window(64);
  for (const float x : {9.0f, 1.0f, 2.0f, 3.0f, 5.0f}) window.add(std::vector<float>{x}, 16);
  EXPECT_FLOAT_EQ(window.mean(16)[0], 5.0f);
  EXPECT_FLOAT_EQ(window.mean(24)[0], (16 * 5.0f + 8 * 3.0f) / 24);
  EXPECT_FLOAT_EQ(window.mean(64)[0], 2.75f);
}

TEST(KeyWindow, IgnoresEmptySummaries) {
  KeyWindow window(32);
  window.add(std::vector<float>{1.0f}, 0);
  window.add({}, 5);
  EXPECT_TRUE(window.mean().empty());
  window.add(std::vector<float>{1.0f, 2.0f}, 4);
  window.add(std::vector<float>{1.0f}, 4);
  EXPECT_EQ(window.mean().size(), 2u);
}

}  // namespace
}  // namespace memslot
