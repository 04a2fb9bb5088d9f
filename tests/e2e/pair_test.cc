// The main job through the two real processes: learn, generate with and without, recover; and
// either process restarting while the other lives.
#include <gtest/gtest.h>

#include "tests/e2e/pair.h"

namespace memslot {
namespace {

using namespace testing_support;

const char* kFerry =
    "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
    "captain keeps "
    "a brass bell from a drowned church, and rings it once for every passenger who owes him money.";
const char* kBaker =
    "Perrin bakes eleven loaves of rye each morning and sells ten. The last one hangs in the "
    "window until "
    "the magpies have counted it, for he holds that bread nobody counted turns sour before noon.";

json learn_arguments(const std::string& source, const std::string& text,
                     const std::string& kind = "lora") {
  return {{"text", text},
          {"source", source},
          {"id", source},
          {"config", {{"kind", kind}, {"rank", 8}, {"max_steps", 60}, {"lr", 0.02}}}};
}

struct PairTest : testing::Test {
  Pair pair;
  std::unique_ptr<Client> client;

  void SetUp() override {
    pair.start();
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
    wait_for_generator();
  }
  void TearDown() override {
    if (HasFailure()) {
      std::fprintf(stderr, "--- controller\n%s--- generator\n%s", pair.controller.log().c_str(),
                   pair.generator.log().c_str());
    }
  }
  // Waits for a generator that answers (a killed one is listed until its heartbeats are missed).
  void wait_for_generator() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < end) {
      if (client->task("status", json::object(), nullptr, std::chrono::seconds(2))) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    FAIL() << "no generator answers";
  }
  json generate(json more, std::vector<json>* events = nullptr) {
    json arguments = {{"prompt", "The ferry to Skerrow leaves at "}, {"max_tokens", 32}};
    arguments.update(more);
    return must(client->task("generate", arguments, events));
  }
};

TEST_F(PairTest, LearnsGeneratesWithTheMemoryAndRecoversBaseBitForBit) {
  const json base = generate({{"memory", "base"}});
  const json attest_before = must(client->task("attest", json::object()));
  const json learned = must(client->task("learn", learn_arguments("ferry", kFerry)));
  EXPECT_EQ(learned["memory"], "default/ferry@1") << learned;
  const json with = generate({{"memory", "ferry"}});
  EXPECT_NE(with["logits_xxh3"], base["logits_xxh3"]);

  const json before = must(client->task("score", {{"text", kFerry}}));
  const json after = must(client->task("score", {{"text", kFerry}, {"memory", "ferry"}}));
  EXPECT_LT(after["nll"].get<double>(), before["nll"].get<double>() - 0.5);
  EXPECT_GT(after["recall"].get<double>(), before["recall"].get<double>());

  const json again = generate({{"memory", "base"}});
  EXPECT_EQ(again["logits_xxh3"], base["logits_xxh3"]);
  EXPECT_EQ(again["text"], base["text"]);
  const json attest = must(client->task("attest", json::object()));
  EXPECT_EQ(attest["equal"], true);
  EXPECT_EQ(attest["digest"], attest_before["digest"]);
}

TEST_F(PairTest, ChoosesAmongMemoriesAtEachStepInBothModes) {
  must(client->task("learn", learn_arguments("ferry", kFerry)));
  must(client->task("learn", learn_arguments("baker", kBaker)));
  for (const char* kv : {"activated", "recompute"}) {
    for (const char* select : {"sync", "async"}) {
      std::vector<json> events;
      const json last = generate({{"memory", "auto"},
                                  {"policy", "nearest"},
                                  {"kv", kv},
                                  {"select", select},
                                  {"prompt", kFerry},
                                  {"deadline_ms", 30'000},  // the choice is tested, not the pace
                                  {"step_tokens", 8}},
                                 &events);
      EXPECT_FALSE(last.contains("missed_deadlines")) << kv << " " << select << last;
      int with_memory = 0;
      for (const json& event : events) {
        if (event["type"] == "step" && event["memory"] != "base") ++with_memory;
      }
      EXPECT_GT(with_memory, 0) << kv << " " << select;
    }
  }
}

TEST_F(PairTest, ATextIsScoredWithTheControllersChoiceAndTheGainIsReported) {
  must(client->task("learn", learn_arguments("ferry", kFerry)));
  must(client->task("learn", learn_arguments("baker", kBaker)));
  // Keys are whitened anew beside the steps when there are more of them: a new index has all.
  pair.controller.kill(SIGTERM);
  pair.controller.start();
  wait_for_generator();
  for (const char* source : {"ferry", "baker"}) {
    std::vector<json> events;
    must(client->task("score",
                      {{"text", source == std::string("ferry") ? kFerry : kBaker},
                       {"memory", "auto"},
                       {"deadline_ms", 30'000},
                       {"policy", "nearest"}},
                      &events));
    int right = 0, steps = 0;
    double gain = 0;
    std::string chosen;
    for (const json& event : events) {
      if (event["type"] != "step" || event["step"] == 0)
        continue;  // nothing is known before step 1
      ++steps;
      right += event["memory"] == std::string("default/").append(source).append("@1") ? 1 : 0;
      gain += event["gain"].get<double>();
      chosen += " " + event["memory"].get<std::string>();
    }
    EXPECT_EQ(right, steps) << source << ":" << chosen;
    EXPECT_GT(gain / steps, 0.5) << source;
  }
}

TEST_F(PairTest, AnotherNamespacesMemoryDoesNotExist) {
  json arguments = learn_arguments("ferry", kFerry);
  arguments["namespace"] = "secret";
  must(client->task("learn", arguments));
  const auto refused = client->task("generate", {{"prompt", "x"}, {"memory", "secret/ferry"}});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  must(client->task(
      "generate",
      {{"prompt", "x"}, {"memory", "ferry"}, {"namespaces", {"secret"}}, {"max_tokens", 4}}));
}

TEST_F(PairTest, ADeltaMemoryIsReadInAndWrittenBackAsANewVersion) {
  const json learned = must(client->task(
      "learn",
      {{"text", kFerry}, {"source", "state"}, {"id", "state"}, {"config", {{"kind", "delta"}}}}));
  EXPECT_EQ(learned["memory"], "default/state@1");
  const json last = generate({{"memory", "state"}, {"write_back", true}});
  EXPECT_EQ(last["write_back"], "default/state@2") << last;
  // Made from the first version again: the head has moved on.
  const json stale = generate({{"memory", "state@1"}, {"write_back", true}});
  EXPECT_EQ(stale["write_back_conflict"], true) << stale;
  const json history = must(client->admin("bank.history", {{"memory", "state"}}));
  EXPECT_GE(history["versions"].size(), 2u);
}

TEST_F(PairTest, BadRequestsAreRefusedAndEverythingGoesOn) {
  const std::pair<json, ErrorCode> cases[] = {
      {{{"prompt", "x"}, {"memory", "nowhere"}}, ErrorCode::kNotFound},
      {{{"prompt", ""}, {"memory", "base"}}, ErrorCode::kInvalidArgument},
      {{{"prompt", std::string(2000, 'x')}, {"memory", "base"}}, ErrorCode::kInvalidArgument},
      {{{"prompt", "x"}, {"memry", "base"}}, ErrorCode::kInvalidArgument},
      {{{"prompt", "x"}, {"policy", "no-such-policy"}}, ErrorCode::kInvalidArgument},
  };
  for (const auto& [arguments, code] : cases) {
    const auto refused = client->task("generate", arguments);
    ASSERT_FALSE(refused.has_value()) << arguments;
    EXPECT_EQ(refused.error().code, code) << arguments << refused.error().message;
  }
  const auto empty = client->task("learn", learn_arguments("empty", ""));
  EXPECT_FALSE(empty.has_value());
  const auto huge = client->task("learn", learn_arguments("long", std::string(5000, 'x')));
  EXPECT_FALSE(huge.has_value());
  generate({{"memory", "base"}});
  EXPECT_EQ(must(client->task("attest", json::object()))["equal"], true);
}

TEST_F(PairTest, TheControllerRestartsWhileTheGeneratorLives) {
  must(client->task("learn", learn_arguments("ferry", kFerry)));
  const json before = generate({{"memory", "ferry"}});
  EXPECT_EQ(pair.controller.kill(SIGTERM), 0);
  pair.controller.start();
  wait_for_generator();
  const json after = generate({{"memory", "ferry"}});
  EXPECT_EQ(after["logits_xxh3"], before["logits_xxh3"]);
  EXPECT_TRUE(pair.generator.alive());
}

TEST_F(PairTest, TheGeneratorRestartsWhileTheControllerLives) {
  must(client->task("learn", learn_arguments("ferry", kFerry)));
  const json before = generate({{"memory", "ferry"}});
  EXPECT_EQ(pair.generator.kill(SIGTERM), 0);
  pair.generator.start();
  wait_for_generator();
  const json after = generate({{"memory", "ferry"}});
  EXPECT_EQ(after["logits_xxh3"], before["logits_xxh3"]);
}

TEST_F(PairTest, StatusReportsWhereTheMemoryGoes) {
  generate({{"memory", "base"}});
  const json status = must(client->task("status", json::object()));
  for (const char* part : {"weights", "scratch", "kv", "resident", "learning_workspace", "rss"}) {
    EXPECT_TRUE(status["memory"].contains(part)) << part;
  }
  EXPECT_GT(status["memory"]["weights"].get<double>(), 0);
}

TEST(GeneratorProgram, RefusesWhatItCannotServe) {
  TemporaryFolder folder;
  const std::string model = write_tiny_model(folder);
  const std::string program = MEMSLOT_GENERATOR;
  const std::string broken = folder.write("broken.gguf", "GGML this is no model");
  const auto code = [&](std::vector<std::string> arguments) {
    return Process(program, std::move(arguments), folder.path() + "/log").run_to_end();
  };
  EXPECT_EQ(code({}), exit_code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(code({"--model", folder.path() + "/absent.gguf"}), exit_code(ErrorCode::kNotFound));
  EXPECT_EQ(code({"--model", broken}), exit_code(ErrorCode::kCorruption));
  constexpr int kUsage = 2;
  EXPECT_EQ(code({"--model", model, "--no-such-option", "1"}), kUsage);
  EXPECT_EQ(code({"--model", model, "--threads", "-1"}), kUsage);
  EXPECT_EQ(code({"--model", model, "--slot-layers", "4"}), exit_code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(code({"--model", model, "--endpoint", "nonsense"}),
            exit_code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(code({"--model", model, "--endpoint", "tcp://192.0.2.1:7400"}),
            exit_code(ErrorCode::kPermission));
  EXPECT_EQ(code({"--help"}), 0);
}

TEST(GeneratorProgram, WaitsForAControllerThatComesLater) {
  Pair pair;
  pair.generator.start();
  pair.controller.start();
  Client client(pair.endpoint);
  must(client.wait_connected());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  bool served = false;
  while (!served && std::chrono::steady_clock::now() < end) {
    served = client.task("attest", json::object()).has_value();
  }
  EXPECT_TRUE(served);
  EXPECT_EQ(pair.generator.kill(SIGTERM), 0);
}

}  // namespace
}  // namespace memslot
