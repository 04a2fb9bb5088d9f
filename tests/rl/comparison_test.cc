#include "rl/comparison.h"

#include <gtest/gtest.h>

#include <fstream>

#include "rl/report/comparison_report.h"
#include "rl/train.h"
#include "tests/rl/synthetic_table.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using nlohmann::json;

// Trained once: two seeds on a small table with all kinds of streams.
class ComparisonTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    table = new GainTable(
        testing_support::SyntheticTable({.train = 5, .streams_each = 2, .all_kinds = true}).take());
    checkpoints = new std::vector<Checkpoint>();
    for (const std::uint64_t seed : {1, 2}) {
      TrainOptions options;
      options.reinforce.seed = seed;
      options.env.candidates = 6;
      options.hidden = 16;
      options.streams = 4;
      options.updates = 20;
      options.imitation = 30;
      checkpoints->push_back(train(*table, options).value().best);
    }
  }
  static void TearDownTestSuite() {
    delete table;
    delete checkpoints;
  }
  static GainTable* table;
  static std::vector<Checkpoint>* checkpoints;
};
GainTable* ComparisonTest::table = nullptr;
std::vector<Checkpoint>* ComparisonTest::checkpoints = nullptr;

TEST_F(ComparisonTest, EverySelectorIsHeldAgainstThePolicyInEveryModeAndKind) {
  const Comparison c = compare(*table, *checkpoints, {}).value();
  for (const Section* s : {&c.recompute, &c.async, &c.prompt, &c.continuation, &c.control}) {
    ASSERT_EQ(s->absent, "") << s->name;
    ASSERT_EQ(s->selectors.size(), 8u) << s->name;
    EXPECT_EQ(s->selectors[0].name, "policy");
    EXPECT_EQ(s->seeds.size(), 2u);
    for (const char* name :
         {"base", "random", "nearest", "wise", "audition", "lagged_oracle", "oracle"}) {
      const Compared* found = s->find(name);
      ASSERT_NE(found, nullptr) << s->name << " " << name;
      EXPECT_NEAR(found->lead, s->selectors[0].score.mean_gain - found->score.mean_gain, 1e-12);
      EXPECT_LE(found->lead_ci95.low, found->lead_ci95.high);
    }
    const double regret = s->find("oracle")->score.regret;
    EXPECT_TRUE(s == &c.async ? regret > 0 : std::abs(regret) < 1e-9) << s->name;
  }
  EXPECT_NE(c.activated.absent, "");
  EXPECT_GT(c.decision_us.at("policy"), 0.0);
  EXPECT_EQ(c.decision_us.count("audition"), 0u);
  EXPECT_EQ(c.seeds_meet_targets.size(), 2u);
}

TEST_F(ComparisonTest, ThePolicysFiguresAreTheMeanOfItsSeeds) {
  const Comparison both = compare(*table, *checkpoints, {}).value();
  double mean = 0;
  for (const Checkpoint& one : *checkpoints) {
    mean += compare(*table, {one}, {}).value().recompute.selectors[0].score.mean_gain / 2;
  }
  EXPECT_NEAR(both.recompute.selectors[0].score.mean_gain, mean, 1e-9);
}

TEST_F(ComparisonTest, NearestIsTunedOnValidationAndNotOnTheTestStreams) {
  const NearestSetting before = compare(*table, *checkpoints, {}).value().recompute.nearest;
  GainTable changed = *table;
  const std::size_t memories = changed.memories.size();
  for (const TableStream& s : changed.streams) {
    if (s.split != Split::kTest) continue;
    for (std::size_t i = 0; i < s.steps.size() * memories; ++i) {
      changed.gain.values[s.first * memories + i] *= -1;
    }
  }
  const NearestSetting after = compare(changed, *checkpoints, {}).value().recompute.nearest;
  EXPECT_EQ(after.window_tokens, before.window_tokens);
  EXPECT_EQ(after.threshold, before.threshold);
}

TEST_F(ComparisonTest, WhatTheActivatedModeNeedsIsWrittenMeasuredAndRead) {
  const auto wanted = schedules(*table, *checkpoints, Split::kTest).value();
  const StreamEnv env(*table, {}, checkpoints->front().whitening);
  // A generator for which nothing but the choice counts: half of what the table says.
  std::string measured;
  std::istringstream lines(text_of(*table, env, wanted));
  std::size_t at = 0;
  for (std::string line; std::getline(lines, line); ++at) {
    json one = json::parse(line);
    const Schedule& s = wanted[at];
    for (std::size_t i = 0; i < s.actions.size(); ++i) {
      one["gain"].push_back(0.5 * static_cast<double>(env.gain(s.stream, i, s.actions[i])));
    }
    measured += one.dump() + "\n";
  }
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/measured.jsonl";
  std::ofstream(path) << measured;
  const MeasuredGains gains = read_measured(*table, path).value();
  EXPECT_EQ(gains.size(), wanted.size());
  const Comparison c =
      compare(*table, *checkpoints, {.split = Split::kTest, .activated = &gains}).value();
  ASSERT_EQ(c.activated.absent, "");
  EXPECT_LT(c.activated.find("oracle")->score.mean_gain,
            c.recompute.find("oracle")->score.mean_gain);
  EXPECT_EQ(c.activated.find("base")->score.mean_gain, 0.0);
  // Without one of them the mode cannot be told.
  MeasuredGains fewer = gains;
  fewer.erase(fewer.begin());
  const auto refused = compare(*table, *checkpoints, {.split = Split::kTest, .activated = &fewer});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
}

TEST_F(ComparisonTest, MeasurementsThatAreNoneOfTheTableAreRefused) {
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/measured.jsonl";
  const std::string id = table->streams[0].id, ref = table->memories[0].ref.text();
  for (const std::string& line :
       {std::string("not json"), std::string("{}"),
        std::string(R"({"stream":"none","actions":["base"],"gain":[0]})"),
        R"({"stream":")" + id + R"(","actions":["base"],"gain":[]})",
        R"({"stream":")" + id + R"(","actions":["default/none@1"],"gain":[0]})",
        R"({"stream":")" + id + R"(","actions":["base"],"gain":[null]})",
        R"({"stream":")" + id + R"(","actions":[")" + ref + R"("],"gain":[1e999]})"}) {
    std::ofstream(path) << line << "\n";
    const auto refused = read_measured(*table, path);
    ASSERT_FALSE(refused) << line;
    EXPECT_EQ(refused.error().code, ErrorCode::kCorruption) << line;
  }
  EXPECT_EQ(read_measured(*table, folder.path() + "/none").error().code, ErrorCode::kNotFound);
}

TEST_F(ComparisonTest, CheckpointsThatDoNotFitAreRefused) {
  const auto code = [&](const std::vector<Checkpoint>& c) {
    const auto compared = compare(*table, c, {});
    return compared ? ErrorCode{} : compared.error().code;
  };
  EXPECT_EQ(code({}), ErrorCode::kInvalidArgument);
  Checkpoint other = checkpoints->front();
  other.task.model = std::string(64, 'b');
  EXPECT_EQ(code({other}), ErrorCode::kMismatch);
  other = checkpoints->front();
  other.task.layer = 3;
  EXPECT_EQ(code({other}), ErrorCode::kMismatch);
  other = checkpoints->front();
  other.whitening = {};
  EXPECT_EQ(code({other}), ErrorCode::kMismatch);
  other = checkpoints->front();
  other.task.window_tokens = 64;
  EXPECT_EQ(code({checkpoints->front(), other}), ErrorCode::kMismatch);
  other = checkpoints->front();
  other.task.candidates = 1;
  EXPECT_EQ(code({other}), ErrorCode::kInvalidArgument);
}

TEST_F(ComparisonTest, TheReportHasTheFiguresWhereReadersLookForThem) {
  const Comparison c = compare(*table, *checkpoints, {}).value();
  const json report = json_of(c);
  for (const char* name :
       {"policy", "base", "random", "nearest", "wise", "audition", "lagged_oracle", "oracle"}) {
    for (const json* of : {&report, &report["modes"]["async"]}) {
      const json& s = (*of)["selectors"][name];
      for (const char* key : {"mean_gain", "regret", "accuracy", "abstention", "swaps_per_100"}) {
        EXPECT_TRUE(s[key].is_number()) << name << " " << key;
      }
      EXPECT_EQ(s["ci95"].size(), 2u) << name;
    }
  }
  EXPECT_TRUE(report["modes"]["activated"]["absent"].is_string());
  EXPECT_EQ(report["policy_seeds"].size(), 2u);
  const std::string page = page_of(c, {{"table", "abc"}, {"split", "test"}});
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find("lagged_oracle"), std::string::npos);
  for (const char* outside : {"http:", "https:", "src=", "@import", "url("}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

TEST_F(ComparisonTest, ASplitWithoutStreamsIsSaidNotGuessed) {
  GainTable none = *table;
  std::erase_if(none.streams, [](const TableStream& s) { return s.split == Split::kTest; });
  const Comparison c = compare(none, *checkpoints, {}).value();
  EXPECT_NE(c.recompute.absent, "");
  EXPECT_TRUE(c.targets.empty());
  EXPECT_TRUE(json_of(c)["absent"].is_string());
  EXPECT_NE(page_of(c, {{"split", "test"}}).find("Not measured"), std::string::npos);
}

}  // namespace
}  // namespace memslot
