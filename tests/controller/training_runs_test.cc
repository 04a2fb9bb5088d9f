// The states of a training, with stand_in_trainer.sh in the place of memslot-rl.
#include "controller/training/training_runs.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>

#include "tests/rl/synthetic_table.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

namespace fs = std::filesystem;

class TrainingRunsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(open().add_table("gains.safetensors", table())); }
  static std::string table() {
    testing_support::SyntheticOptions options;
    options.train = 2;
    options.validation = options.test = options.uncovered = options.streams_each = 1;
    return testing_support::SyntheticTable(options).take().bytes();
  }
  TrainingRuns& open() {
    runs_ = nullptr;
    runs_ = std::make_unique<TrainingRuns>(at_, program_, clock_);
    return *runs_;
  }
  TrainingRun run(const std::string& name) {
    const auto all = runs_->runs().value();
    for (const TrainingRun& one : all) {
      if (one.name == name) return one;
    }
    ADD_FAILURE() << "no run " << name;
    return {};
  }
  static void wait(const std::function<bool()>& condition) {
    for (int i = 0; i < 3000 && !condition(); ++i) ::usleep(10'000);
    ASSERT_TRUE(condition());
  }
  TrainingRun ended(const std::string& name) {
    wait([&] { return run(name).state != "running"; });
    return run(name);
  }
  Result<std::string> start(const std::string& seed, const std::string& name = "") {
    return runs_->start("gains.safetensors", name, {{"seed", seed}});
  }
  std::string words(const std::string& name) {
    std::ifstream file(at_ + "/runs/" + name + "/words");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const testing_support::TemporaryFolder folder_;
  const std::string at_ = folder_.path() + "/training",
                    program_ = MEMSLOT_SOURCE_DIR "/tests/controller/stand_in_trainer.sh";
  const SystemClock clock_;
  std::unique_ptr<TrainingRuns> runs_;
};

TEST_F(TrainingRunsTest, TrainsThenCompares) {
  EXPECT_EQ(runs_->tables().value(), std::vector<std::string>{"gains.safetensors"});
  const auto name =
      runs_->start("gains.safetensors", "", {{"seed", "1"}, {"learning_rate", "0.01"}});
  ASSERT_TRUE(name) << name.error().message;
  EXPECT_EQ(name.value(), "gains-1");
  const TrainingRun run = ended("gains-1");
  EXPECT_EQ(run.state, "done");
  EXPECT_EQ(run.message, "");
  EXPECT_EQ(run.update, 40u);
  EXPECT_TRUE(run.policy);
  EXPECT_EQ(runs_->policy("gains-1").value(), "policy\n");
  EXPECT_NE(words("gains-1").find("--learning-rate 0.01 --seed 1\n"), std::string::npos);
  ASSERT_EQ(runs_->comparisons().value().size(), 1u);
  EXPECT_EQ(runs_->comparisons().value()[0].first, "gains-1");
  EXPECT_NE(runs_->comparisons().value()[0].second.find("selectors"), std::string::npos);
  EXPECT_EQ(runs_->curve("gains-1").value().size(), 1u);
  EXPECT_EQ(start("1").value(), "gains-2");
  ended("gains-2");
}

TEST_F(TrainingRunsTest, AFailureSaysWhatTheProgramSaid) {
  ASSERT_TRUE(start("2", "bad"));
  const TrainingRun run = ended("bad");
  EXPECT_EQ(run.state, "failed");
  EXPECT_EQ(run.message, "memslot: --gamma: expected less");
  EXPECT_EQ(runs_->policy("bad").error().code, ErrorCode::kNotFound);
  // Nothing was saved: the name is free for other options.
  ASSERT_TRUE(start("1", "bad"));
  EXPECT_EQ(ended("bad").state, "done");
}

TEST_F(TrainingRunsTest, WithoutAComparisonThePolicyIsThereAllTheSame) {
  ASSERT_TRUE(start("5", "lone"));
  const TrainingRun run = ended("lone");
  EXPECT_EQ(run.state, "done");
  EXPECT_EQ(run.message, "not compared: memslot: no streams to compare on");
  EXPECT_TRUE(run.policy);
}

TEST_F(TrainingRunsTest, OneAtATimeStoppedAndGoneOn) {
  ASSERT_TRUE(start("3", "long"));
  wait([&] { return run("long").update == 20; });
  EXPECT_EQ(start("1", "other").error().code, ErrorCode::kConflict);
  EXPECT_EQ(runs_->remove("long").error().code, ErrorCode::kConflict);
  EXPECT_EQ(runs_->stop("other").error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(runs_->stop("long"));
  EXPECT_EQ(ended("long").state, "stopped");
  EXPECT_EQ(runs_->stop("long").error().code, ErrorCode::kConflict);
  // What was saved goes on only as what it was.
  EXPECT_EQ(start("1", "long").error().code, ErrorCode::kConflict);
  ASSERT_TRUE(start("3", "long"));
  EXPECT_EQ(ended("long").state, "done");
  EXPECT_NE(words("long").find("--resume"), std::string::npos);
  EXPECT_EQ(start("3", "long").error().code, ErrorCode::kConflict);
  ASSERT_TRUE(runs_->remove("long"));
  EXPECT_TRUE(runs_->runs().value().empty());
}

TEST_F(TrainingRunsTest, TheEndOfTheControllerStopsIt) {
  ASSERT_TRUE(start("3", "long"));
  wait([&] { return run("long").update == 20; });
  open();
  EXPECT_EQ(run("long").state, "stopped");
  ASSERT_TRUE(start("3", "long"));
  EXPECT_EQ(ended("long").state, "done");
}

// The program is told to end, and the next controller knows what became of it.
TEST_F(TrainingRunsTest, AKilledControllerTakesItsTrainingWithIt) {
  runs_ = nullptr;
  const pid_t controller = ::fork();
  if (controller == 0) {
    TrainingRuns runs(at_, program_, clock_);
    if (!runs.start("gains.safetensors", "long", {{"seed", "3"}})) ::_exit(1);
    for (;;) ::pause();
  }
  const std::string of_run = at_ + "/runs/long/";
  wait([&] { return fs::exists(of_run + "policy.safetensors.curve.jsonl"); });
  ASSERT_EQ(::kill(controller, SIGKILL), 0);
  ASSERT_EQ(::waitpid(controller, nullptr, 0), controller);
  wait([&] { return fs::exists(of_run + "ended"); });
  open();
  EXPECT_EQ(run("long").state, "stopped");
  EXPECT_NE(run("long").message.find("the controller ended"), std::string::npos);
  ASSERT_TRUE(start("3", "long"));
  EXPECT_EQ(ended("long").state, "done");
}

TEST_F(TrainingRunsTest, ARunThatCannotBeReadIsShownAndCanBeRemoved) {
  for (const std::string text :
       {"", "no JSON", "{}", R"({"table": 7, "state": [], "options": 1})"}) {
    fs::create_directories(at_ + "/runs/broken");
    std::ofstream(at_ + "/runs/broken/run.json") << text;
    std::ofstream(at_ + "/runs/broken/policy.safetensors.curve.jsonl")
        << "[1]\n{\"type\": 3, \"update\": \"x\"}\nno JSON\n";
    const TrainingRun run = this->run("broken");
    EXPECT_EQ(run.state, "failed") << text;
    EXPECT_NE(run.message.find("run.json"), std::string::npos) << run.message;
    EXPECT_EQ(run.update, 0u);
    ASSERT_TRUE(runs_->remove("broken")) << text;
    EXPECT_TRUE(runs_->runs().value().empty());
  }
}

TEST_F(TrainingRunsTest, WhatEndedByASignalSaysSoAndNotWhatWasSaidBefore) {
  ASSERT_TRUE(start("2", "twice"));
  ASSERT_EQ(ended("twice").message, "memslot: --gamma: expected less");
  ASSERT_TRUE(start("6", "twice"));
  EXPECT_EQ(ended("twice").message, "ended by signal 9");
  ASSERT_TRUE(start("7", "twice"));
  EXPECT_EQ(ended("twice").message, "exit code 3");
}

TEST_F(TrainingRunsTest, OfALongCurveTheFirstLineAndTheNewestOnesAreShown) {
  ASSERT_TRUE(start("1", "long"));
  ended("long");
  {
    std::ofstream curve(at_ + "/runs/long/policy.safetensors.curve.jsonl");
    curve << R"({"type":"start"})" << '\n';
    for (int i = 1; i <= 60000; ++i) curve << R"({"type":"look","update":)" << i << "}\n";
  }
  const auto lines = runs_->curve("long").value();
  EXPECT_EQ(lines.front(), R"({"type":"start"})");
  EXPECT_EQ(lines.back(), R"({"type":"look","update":60000})");
  EXPECT_LT(lines.size(), 50000u);
  EXPECT_EQ(run("long").update, 60000u);
}

TEST_F(TrainingRunsTest, WrongNamesTablesAndOptionsAreRefused) {
  for (const std::string& name : {std::string("../up"), std::string(".hidden"), std::string("a/b"),
                                  std::string("-x"), std::string(65, 'a')}) {
    EXPECT_EQ(start("1", name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(runs_->policy(name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(runs_->remove(name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(runs_->stop(name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(runs_->add_table(name + ".safetensors", table()).error().code,
              ErrorCode::kInvalidArgument)
        << name;
  }
  EXPECT_EQ(runs_->start("none.safetensors", "", {}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(runs_->start("gains.txt", "", {}).error().code, ErrorCode::kInvalidArgument);
  using Options = std::map<std::string, std::string>;
  for (const Options& options :
       {Options{{"out", "elsewhere"}}, Options{{"colour", "1"}}, Options{{"seed", "--resume"}},
        Options{{"seed", ""}}, Options{{"seed", std::string(40, '1')}}}) {
    EXPECT_EQ(runs_->start("gains.safetensors", "x", options).error().code,
              ErrorCode::kInvalidArgument)
        << options.begin()->first;
  }
  EXPECT_EQ(runs_->add_table("new.safetensors", "junk").error().code, ErrorCode::kCorruption);
  EXPECT_EQ(runs_->tables().value().size(), 1u);
  EXPECT_TRUE(runs_->runs().value().empty());
}

TEST_F(TrainingRunsTest, WithoutFolderOrProgramItSaysSo) {
  TrainingRuns none("", program_, clock_);
  EXPECT_EQ(none.runs().error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(none.start("gains.safetensors", "", {}).error().code, ErrorCode::kUnavailable);
  TrainingRuns without(at_, folder_.path() + "/nothing", clock_);
  EXPECT_EQ(without.start("gains.safetensors", "", {}).error().code, ErrorCode::kNotSupported);
  EXPECT_TRUE(without.runs().value().empty());
}

}  // namespace
}  // namespace memslot
