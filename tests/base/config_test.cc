#include "shared/base/config.h"

#include <gtest/gtest.h>

#include <sstream>

#include <cstdio>
#include <fstream>

namespace memslot {
namespace {

struct Settings {
  std::string bank = "here";
  bool exact = false;
  std::int64_t heartbeat_ms = 1000;
  double threshold = 0.25;
  std::string mode = "slow";
  std::vector<std::string> allow;
};

struct Outcome {
  Settings settings;
  Result<ConfigOutcome> result = ConfigOutcome{};
};

ConfigTable table_for(Settings& s) {
  ConfigTable table("program", "PROG");
  table.add({.name = "bank", .target = &s.bank, .help = "directory of the bank"});
  table.add({.name = "exact", .target = &s.exact, .help = "no approximation"});
  table.add({.name = "heartbeat_ms",
             .target = &s.heartbeat_ms,
             .help = "between heartbeats",
             .unit = "ms",
             .min = 10,
             .max = 60000});
  table.add(
      {.name = "threshold", .target = &s.threshold, .help = "least cosine", .min = -1, .max = 1});
  table.add({.name = "mode", .target = &s.mode, .help = "how", .choices = {"slow", "fast"}});
  table.add({.name = "allow", .target = &s.allow, .help = "clients"});
  return table;
}

Outcome load(std::vector<const char*> arguments, std::vector<const char*> environment = {}) {
  Outcome out;
  arguments.insert(arguments.begin(), "program");
  environment.push_back(nullptr);
  ConfigTable table = table_for(out.settings);
  out.result = table.load(static_cast<int>(arguments.size()), arguments.data(), environment.data());
  return out;
}

class ConfigFile : public testing::Test {
 protected:
  void TearDown() override { std::remove(path_.c_str()); }
  Outcome load_text(const std::string& text, std::vector<const char*> arguments = {},
                    std::vector<const char*> environment = {}) {
    std::ofstream(path_) << text;
    arguments.insert(arguments.begin(), {"--config", path_.c_str()});
    return load(std::move(arguments), std::move(environment));
  }
  std::string path_ = testing::TempDir() + "memslot_config_test_" +
                      testing::UnitTest::GetInstance()->current_test_info()->name() + ".toml";
};

void expect_error(const Outcome& outcome, ErrorCode code, const std::vector<std::string>& parts) {
  ASSERT_FALSE(outcome.result);
  EXPECT_EQ(outcome.result.error().code, code);
  for (const std::string& part : parts) {
    EXPECT_NE(outcome.result.error().message.find(part), std::string::npos)
        << outcome.result.error().message << " lacks " << part;
  }
}

TEST(Config, KeepsDefaultsWhenNothingIsSaid) {
  const Outcome o = load({});
  ASSERT_TRUE(o.result);
  EXPECT_TRUE(o.result.value().run);
  EXPECT_EQ(o.settings.bank, "here");
  EXPECT_EQ(o.settings.heartbeat_ms, 1000);
}

TEST(Config, ReadsEveryTypeFromTheCommandLine) {
  const Outcome o = load({"--bank", "there", "--exact", "--heartbeat-ms=50", "--threshold", "-0.5",
                          "--mode=fast", "--allow", "a", "--allow", "b;c"});
  ASSERT_TRUE(o.result);
  EXPECT_EQ(o.settings.bank, "there");
  EXPECT_TRUE(o.settings.exact);
  EXPECT_EQ(o.settings.heartbeat_ms, 50);
  EXPECT_EQ(o.settings.threshold, -0.5);
  EXPECT_EQ(o.settings.mode, "fast");
  EXPECT_EQ(o.settings.allow, (std::vector<std::string>{"a", "b;c"}));
}

TEST(Config, ReadsTheEnvironmentAndSplitsLists) {
  const Outcome o = load({}, {"PROG_BANK=there", "PROG_ALLOW=a;b", "PROG_EXACT=true", "OTHER_X=1"});
  ASSERT_TRUE(o.result);
  EXPECT_EQ(o.settings.bank, "there");
  EXPECT_TRUE(o.settings.exact);
  EXPECT_EQ(o.settings.allow, (std::vector<std::string>{"a", "b"}));
}

TEST_F(ConfigFile, ReadsEveryTypeAndWholeNumbersWhereNumbersAreAsked) {
  const Outcome o = load_text(
      "bank = \"there\"\nexact = true\nheartbeat_ms = 20\nthreshold = 1\nallow = [\"a\", \"b\"]\n");
  ASSERT_TRUE(o.result) << o.result.error().message;
  EXPECT_EQ(o.settings.bank, "there");
  EXPECT_EQ(o.settings.heartbeat_ms, 20);
  EXPECT_EQ(o.settings.threshold, 1.0);
  EXPECT_EQ(o.settings.allow.size(), 2u);
}

TEST_F(ConfigFile, IsOverriddenByEnvironmentAndThatByTheCommandLine) {
  const Outcome o =
      load_text("bank = \"file\"\nmode = \"fast\"\nheartbeat_ms = 20\nallow = [\"x\"]\n",
                {"--bank=line", "--allow=z"}, {"PROG_BANK=env", "PROG_HEARTBEAT_MS=30"});
  ASSERT_TRUE(o.result);
  EXPECT_EQ(o.settings.bank, "line");
  EXPECT_EQ(o.settings.heartbeat_ms, 30);
  EXPECT_EQ(o.settings.mode, "fast");
  EXPECT_EQ(o.settings.allow, std::vector<std::string>{"z"});
}

TEST(Config, RefusesUnknownNamesEverywhere) {
  expect_error(load({"--bannk=x"}), ErrorCode::kInvalidArgument, {"--bannk"});
  expect_error(load({"stray"}), ErrorCode::kInvalidArgument, {"stray"});
  expect_error(load({}, {"PROG_BANNK=x"}), ErrorCode::kInvalidArgument, {"PROG_BANNK"});
}

TEST_F(ConfigFile, RefusesUnknownNamesTablesAndBadSyntax) {
  expect_error(load_text("bannk = 1\n"), ErrorCode::kInvalidArgument, {"bannk", path_});
  expect_error(load_text("[bank]\nx = 1\n"), ErrorCode::kInvalidArgument, {"bank", "text"});
  expect_error(load_text("bank = \n"), ErrorCode::kInvalidArgument, {path_});
}

TEST(Config, SaysThatTheFileIsMissing) {
  expect_error(load({"--config", "/no/such/file.toml"}), ErrorCode::kNotFound, {"/no/such/file"});
}

TEST(Config, RefusesValuesOfAnotherTypeOrOutOfBounds) {
  expect_error(load({"--heartbeat-ms=5"}), ErrorCode::kInvalidArgument,
               {"heartbeat_ms", "10", "5"});
  expect_error(load({"--heartbeat-ms=ten"}), ErrorCode::kInvalidArgument, {"integer", "ten"});
  expect_error(load({"--heartbeat-ms=10x"}), ErrorCode::kInvalidArgument, {"10x"});
  expect_error(load({"--threshold=nan"}), ErrorCode::kInvalidArgument, {"threshold"});
  expect_error(load({"--exact=maybe"}), ErrorCode::kInvalidArgument, {"true or false", "maybe"});
  expect_error(load({"--mode=medium"}), ErrorCode::kInvalidArgument, {"slow, fast", "medium"});
  expect_error(load({"--bank"}), ErrorCode::kInvalidArgument, {"--bank", "value"});
}

TEST_F(ConfigFile, RefusesValuesOfAnotherType) {
  expect_error(load_text("bank = 3\n"), ErrorCode::kInvalidArgument, {"bank", "text", "3"});
  expect_error(load_text("heartbeat_ms = \"20\"\n"), ErrorCode::kInvalidArgument, {"integer"});
  expect_error(load_text("allow = [1]\n"), ErrorCode::kInvalidArgument, {"list of texts"});
  expect_error(load_text("allow = \"a\"\n"), ErrorCode::kInvalidArgument, {"list of texts"});
}

TEST(Config, PrintsHelpWithDefaultsBoundsAndUnits) {
  const Outcome help = load({"--help-config"});
  ASSERT_TRUE(help.result);
  EXPECT_FALSE(help.result.value().run);
  EXPECT_NE(help.result.value().text.find(
                "| `heartbeat_ms` | integer | ms | `1000` | 10 to 60000 | between heartbeats |"),
            std::string::npos)
      << help.result.value().text;
  const std::string page = load({"--help"}).result.value().text;
  EXPECT_NE(page.find("--heartbeat-ms"), std::string::npos);
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

}  // namespace
}  // namespace memslot
