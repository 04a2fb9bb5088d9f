// Traces through the two real processes: every generation is recorded, and replays bit for bit,
// also after both were restarted; what-if, also by another policy; what is not visible, gone or
// damaged.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "tests/e2e/pair.h"
#include "tests/support/model_path.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

using namespace testing_support;

const std::pair<const char*, const char*> kSources[] = {
    {"ferry",
     "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
     "captain keeps a brass bell from a drowned church, and rings it once for every passenger."},
    {"clock",
     "0412 0927 1355 2210: the four numbers painted inside the lid. 88 teeth, 17 jewels, 3 "
     "hands; wound 6 times at 7.30, it loses 4 minutes in 100 hours and gains 9 in 1000."},
};

struct TraceTest : testing::Test {
  Pair pair;
  std::unique_ptr<Client> client;

  void SetUp() override {
    pair.start();
    connect();
    for (const auto& [source, text] : kSources) {
      must(client->task(
          "learn", {{"text", text},
                    {"source", source},
                    {"id", source},
                    {"config", {{"kind", "lora"}, {"rank", 4}, {"max_steps", 24}, {"lr", 0.02}}}}));
    }
  }
  void TearDown() override {
    if (HasFailure()) {
      std::fprintf(stderr, "--- controller\n%s--- generator\n%s", pair.controller.log().c_str(),
                   pair.generator.log().c_str());
    }
  }
  void connect() {
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!client->task("status", json::object(), nullptr, std::chrono::seconds(2))) {
      if (std::chrono::steady_clock::now() > end) FAIL() << "no generator answers";
    }
  }
  std::string generate(const json& more) {
    json arguments = {{"prompt", "The ferry to Skerrow leaves at "},
                      {"max_tokens", 24},
                      {"step_tokens", 6},
                      {"deadline_ms", 30000}};
    arguments.update(more);
    return must(client->task("generate", arguments))["trace"];
  }
  std::string read(const json& more) {
    json arguments = {{"text", kSources[0].second},
                      {"memory", "auto"},
                      {"policy", "nearest"},
                      {"deadline_ms", 30000}};
    arguments.update(more);
    return must(client->task("score", arguments))["trace"];
  }
  // The trace, once its end is there: events follow the answer.
  json shown(const std::string& id) {
    for (int tries = 0; tries < 200; ++tries) {
      json out = must(client->admin("trace.show", {{"trace", id}}));
      if (out["ended"] == true) return out;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    throw std::runtime_error("trace " + id + " has no end");
  }
  void expect_identical(const std::string& id) {
    const json trace = shown(id);
    const json replayed = must(client->task("replay", {{"trace", id}}));
    EXPECT_EQ(replayed["identical"], true) << replayed << trace["request"];
    EXPECT_EQ(replayed["steps"], trace["steps"]);
    const json checked = must(client->admin("trace.check", {{"trace", id}}));
    EXPECT_EQ(checked["checked"], checked["decisions"]) << checked;
    EXPECT_TRUE(checked["others"].empty()) << checked;
    if (trace["policy"] == "") return;
    EXPECT_EQ(checked["decisions"], trace["steps"]) << trace["request"];
  }
  std::optional<ErrorCode> refused(const std::string& kind, const json& arguments) {
    const auto reply =
        kind.starts_with("trace.") ? client->admin(kind, arguments) : client->task(kind, arguments);
    return reply ? std::nullopt : std::optional(reply.error().code);
  }
};

// Settings drawn at random: sampling, both KV modes, sync and async, policies, pins, schedules.
json drawn_settings(std::mt19937& random) {
  const auto one_of = [&](std::initializer_list<json> values) {
    return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
  };
  json out = {{"kv", one_of({"activated", "recompute"})},
              {"temperature", one_of({0.0, 0.7, 1.3})},
              {"top_k", one_of({0, 5})},
              {"top_p", one_of({1.0, 0.8})},
              {"seed", random() % 1000},
              {"step_tokens", one_of({1, 4, 6, 16})},
              {"max_tokens", 1 + random() % 32},
              {"prompt", one_of({"The ferry", kSources[0].second, kSources[1].second, "88"})}};
  switch (random() % 4) {
    case 0: out["memory"] = one_of({"base", "ferry", "clock@1"}); break;
    case 1:
      out["schedule"] = {{{"step", random() % 3}, {"memory", "clock"}},
                         {{"step", 3}, {"memory", one_of({"base", "ferry"})}}};
      break;
    default:
      out["select"] = one_of({"sync", "async"});
      out["policy"] = one_of({"nearest", "nearest:-1", "random"});
      out["explore"] = one_of({true, false});
  }
  return out;
}

TEST_F(TraceTest, GenerationsOfAllSettingsReplayBitForBitAlsoAfterRestarts) {
  std::mt19937 random(test_seed());
  const int count = std::getenv("MEMSLOT_FULL") != nullptr ? 900 : 40;
  std::vector<std::string> traces;
  for (int i = 0; i < count; ++i) traces.push_back(generate(drawn_settings(random)));
  for (const std::string& id : traces) expect_identical(id);

  EXPECT_EQ(pair.controller.kill(SIGKILL), -SIGKILL);
  EXPECT_EQ(pair.generator.kill(SIGTERM), 0);
  pair.start();
  connect();
  for (const std::string& id : traces) expect_identical(id);
}

// With all that belongs to it, from a backup into an empty folder.
TEST_F(TraceTest, ABackupTakesTheTracesAlong) {
  std::mt19937 random(test_seed());
  std::vector<std::string> traces;
  for (int i = 0; i < 4; ++i) traces.push_back(generate(drawn_settings(random)));
  for (const std::string& id : traces) shown(id);
  const std::string backup = pair.folder.path() + "/backup";
  EXPECT_EQ(must(client->admin("bank.backup", {{"directory", backup}}))["traces"], 4);
  EXPECT_EQ(pair.controller.kill(SIGTERM), 0);
  const std::string bank = pair.folder.path() + "/bank";
  std::filesystem::remove_all(bank);
  std::filesystem::remove_all(bank + ".traces");
  Process restore(MEMSLOT_CONTROLLER, {"--restore", backup, "--bank", bank},
                  pair.folder.path() + "/restore.log");
  EXPECT_EQ(restore.run_to_end(), 0) << restore.log();
  pair.controller.start();
  connect();
  for (const std::string& id : traces) expect_identical(id);
}

// The same on the default model.
TEST(TraceOfTheDefaultModel, ReplaysBitForBit) {
  MEMSLOT_MODEL_OR_SKIP(model);
  Pair pair(model);
  pair.start();
  Client client(pair.endpoint);
  must(client.wait_connected());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!client.task("status", json::object(), nullptr, std::chrono::seconds(2))) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "no generator answers";
  }
  if (!must(client.task("attest", json::object()))["row_invariant"]) {
    GTEST_SKIP() << "not row-invariant here: bits are only those of the same schedule of calls";
  }
  for (const auto& [source, text] : kSources) {
    must(client.task("learn",
                     {{"text", text},
                      {"source", source},
                      {"id", source},
                      {"config", {{"kind", "lora"}, {"rank", 4}, {"max_steps", 4}, {"anchor", 0}}}},
                     nullptr, std::chrono::seconds(300)));
  }
  std::mt19937 random(test_seed());
  const int count = std::getenv("MEMSLOT_FULL") != nullptr ? 100 : 3;
  for (int i = 0; i < count; ++i) {
    json arguments = drawn_settings(random);
    arguments["deadline_ms"] = 30000;
    const json last = must(client.task("generate", arguments));
    const std::string id = last["trace"];
    for (bool ended = false; !ended;) {
      ended = must(client.admin("trace.show", {{"trace", id}}))["ended"];
    }
    const json replayed = must(client.task("replay", {{"trace", id}}));
    EXPECT_EQ(replayed["identical"], true) << replayed << arguments;
    EXPECT_TRUE(must(client.admin("trace.check", {{"trace", id}}))["others"].empty());
  }
}

// A memory that changes while it writes begins where its session began.
TEST_F(TraceTest, AStatefulMemoryReplaysFromItsOwnState) {
  must(client->task("learn", {{"text", kSources[0].second},
                              {"source", "state"},
                              {"id", "state"},
                              {"config", {{"kind", "delta"}}}}));
  for (const char* kv : {"activated", "recompute"}) {
    const std::string plain = generate({{"memory", "state"}, {"kv", kv}, {"write_back", true}});
    EXPECT_EQ(shown(plain)["write_backs"].size(), 1u);
    expect_identical(plain);
    const json swaps = {{{"step", 1}, {"memory", "ferry"}},
                        {{"step", 2}, {"memory", "state@1"}},
                        {{"step", 3}, {"memory", "base"}}};
    expect_identical(generate({{"memory", "state@1"}, {"kv", kv}, {"schedule", swaps}}));
  }
}

TEST_F(TraceTest, TellsWhatWasDoneAndWhy) {
  const json trace = shown(generate({{"policy", "nearest:-1"}, {"prompt", kSources[0].second}}));
  EXPECT_EQ(trace["policy"], "nearest:-1");
  EXPECT_EQ(trace["origin"], "written");
  EXPECT_EQ(trace["finish"], "length");
  EXPECT_EQ(trace["prompt"], kSources[0].second);
  EXPECT_EQ(trace["request"]["seed"], 1);
  EXPECT_EQ(trace["build"]["threads"], 1);
  EXPECT_EQ(trace["steps"], 4);
  const json& step = trace["shown"][1];
  EXPECT_EQ(step["tokens"].size(), 6u);
  EXPECT_EQ(step["log_probs"].size(), 6u);
  EXPECT_EQ(step["advised_step"], 1);
  EXPECT_EQ(step["active"][0]["reason"], "directive");
  ASSERT_EQ(step["decisions"].size(), 1u);
  const json& decision = step["decisions"][0];
  EXPECT_EQ(decision["candidates"].size(), 3u);  // base and the two
  EXPECT_EQ(decision["chosen"], step["active"][0]["memory"]);
  EXPECT_EQ(decision["candidates"][0]["memory"], "base");

  const json late = shown(generate({{"policy", "nearest:-1"}, {"select", "async"}}));
  EXPECT_FALSE(late["shown"][0].contains("advised_step"));
  EXPECT_EQ(late["shown"][1]["advised_step"], 0);
  EXPECT_EQ(late["shown"][1]["active"][0]["reason"], "late");
}

TEST_F(TraceTest, AReadTextIsRecordedWithItsGainsAndReplays) {
  const std::string id = read({{"policy", "nearest:-1"}});
  const json trace = shown(id);
  EXPECT_EQ(trace["origin"], "read");
  EXPECT_TRUE(trace["shown"][1].contains("gain"));
  expect_identical(id);
  const json changed = must(
      client->task("replay", {{"trace", id}, {"what_if", {{"step", 1}, {"memory", "clock"}}}}));
  EXPECT_TRUE(changed["divergence"].is_null()) << changed;
  EXPECT_FALSE(changed.contains("what_if"));
  EXPECT_LT(changed["original"]["gain"].get<double>(), 0.0) << changed;
}

TEST_F(TraceTest, WhatIfAnotherMemoryHadBeenActive) {
  const std::string id = generate({{"memory", "ferry"}, {"max_tokens", 30}});
  const json trace = shown(id);
  const json done = must(
      client->task("replay", {{"trace", id}, {"what_if", {{"step", 2}, {"memory", "clock"}}}}));
  EXPECT_TRUE(done["divergence"].is_null()) << done;
  EXPECT_EQ(done["instead_of"], "default/ferry@1");
  // As recorded, the original has the log-probabilities of its trace.
  double recorded = 0;
  for (const json& step : trace["shown"]) {
    for (const json& value : step["log_probs"]) recorded += value.get<double>();
  }
  EXPECT_NEAR(done["original"]["log_prob"].get<double>(), recorded, 1e-3);
  EXPECT_NE(done["original"]["tokens"], done["what_if"]["tokens"]);
  EXPECT_NE(done["original"]["log_prob"], done["original"]["log_prob_with_change"]);
  // The same as a generation with that schedule from the start.
  const json again = must(client->task(
      "generate",
      {{"prompt", "The ferry to Skerrow leaves at "},
       {"max_tokens", 30},
       {"step_tokens", 6},
       {"memory", "ferry"},
       {"schedule", {{{"step", 2}, {"memory", "clock"}}, {{"step", 3}, {"memory", "ferry"}}}}}));
  EXPECT_EQ(done["what_if"]["tokens"], again["tokens"]);
  // The change that changes nothing.
  const json same = must(
      client->task("replay", {{"trace", id}, {"what_if", {{"step", 2}, {"memory", "ferry@1"}}}}));
  EXPECT_EQ(same["what_if"]["tokens"], same["original"]["tokens"]);
  EXPECT_NEAR(same["what_if"]["log_prob"].get<double>(), recorded, 1e-3);
  EXPECT_NEAR(same["original"]["log_prob_with_change"].get<double>(), recorded, 1e-3);
  EXPECT_NEAR(same["what_if"]["log_prob_as_recorded"].get<double>(), recorded, 1e-3);
}

// What another policy had chosen, and the texts that its choices make.
struct PolicyWhatIfTest : TraceTest {
  json choices(const std::string& id, const std::string& policy) {
    return must(client->admin("trace.choices", {{"trace", id}, {"policy", policy}}));
  }
  json replay(const std::string& id, const json& choices) {
    return must(client->task("replay", {{"trace", id}, {"what_if", {{"choices", choices}}}}));
  }
  static double sum(const json& steps, const char* name) {
    double out = 0;
    for (const json& step : steps) {
      for (const json& value : step[name]) out += value.get<double>();
    }
    return out;
  }
  static std::string active(const json& step) { return step["active"][0]["memory"]; }
};

TEST_F(PolicyWhatIfTest, ThePolicyThatChoseChoosesTheSame) {
  std::mt19937 random(test_seed());
  for (int tried = 0, asked = 0; asked < 12 && tried < 100; ++tried) {
    const json settings = drawn_settings(random);
    if (!settings.contains("policy")) continue;
    const std::string id = generate(settings);
    const json trace = shown(id);
    const json same = choices(id, trace["policy"]);
    EXPECT_EQ(same["decisions"], trace["steps"]) << settings;
    EXPECT_EQ(same["otherwise"], 0) << settings << same;
    EXPECT_EQ(same["choices"], json::array()) << settings << same;
    EXPECT_EQ(same["notes"], json::array()) << same;
    ++asked;
  }
}

// Of a reading everything that the what-if says can be computed another way.
TEST_F(PolicyWhatIfTest, OfAReadTextIsTheScoreUnderItsSchedule) {
  for (const char* kv : {"activated", "recompute"}) {
    const std::string id = read({{"policy", "nearest:-1"}, {"step_tokens", 8}, {"kv", kv}});
    const json trace = shown(id);
    const json other = choices(id, "random");
    ASSERT_FALSE(other["choices"].empty());
    json schedule = json::array();  // as `score` takes it: what is active in every step
    std::map<std::uint64_t, std::string> changed;
    for (const json& one : other["choices"]) changed[one["step"]] = one["memory"];
    for (const json& step : trace["shown"]) {
      const std::uint64_t number = step["step"];
      const bool is_changed = changed.contains(number);
      EXPECT_TRUE(!is_changed || changed[number] != active(step));
      schedule.push_back(
          {{"step", number}, {"memory", is_changed ? changed[number] : active(step)}});
    }
    const json scored = must(client->task(
        "score",
        {{"text", kSources[0].second}, {"kv", kv}, {"step_tokens", 8}, {"schedule", schedule}}));
    double expected = 0;
    for (const json& token : scored["tokens"]) expected += token["logprob"].get<double>();
    const json done = replay(id, other["choices"]);
    const json& original = done["original"];
    const auto tokens = static_cast<double>(original["tokens"].size());
    const double recorded = sum(trace["shown"], "log_probs");
    EXPECT_NEAR(original["log_prob_with_change"].get<double>(), expected, 1e-3);
    EXPECT_NEAR(original["log_prob"].get<double>(), recorded, 1e-3);
    EXPECT_NEAR(original["gain"].get<double>(), (expected - recorded) / tokens, 1e-5);
    EXPECT_NE(original["log_prob"], original["log_prob_with_change"]);
    EXPECT_FALSE(done.contains("what_if"));
    EXPECT_TRUE(done["divergence"].is_null()) << done["divergence"];
    EXPECT_EQ(done["changes"], other["choices"].size());
  }
}

// `base` had written what a session without memories writes.
TEST_F(PolicyWhatIfTest, OfAWrittenTextIsWhatItsChoicesWrite) {
  const json settings = {{"policy", "nearest:-1"}, {"max_tokens", 30}, {"temperature", 0.8}};
  const std::string id = generate(settings);
  const json trace = shown(id);
  const json other = choices(id, "base");
  EXPECT_EQ(other["policy"], "base");
  EXPECT_EQ(other["decisions"], 5);
  ASSERT_EQ(active(trace["shown"][0]), "default/ferry@1");
  ASSERT_EQ(other["choices"].size(), 5u) << other;
  const json done = replay(id, other["choices"]);
  json plain = settings;
  plain.erase("policy");
  plain["memory"] = "base";
  const json base = shown(generate(plain));
  json written = json::array();
  for (const json& step : base["shown"]) {
    for (const json& token : step["tokens"]) written.push_back(token);
  }
  EXPECT_EQ(done["what_if"]["tokens"], written);
  EXPECT_NEAR(done["what_if"]["log_prob"].get<double>(), sum(base["shown"], "log_probs"), 1e-3);
  EXPECT_NE(done["original"]["tokens"], written);
  EXPECT_EQ(done["step"], 0);
  EXPECT_EQ(done["memory"], "base");
  EXPECT_EQ(done["instead_of"], "default/ferry@1");

  // And back: what base wrote, asked of the memories that were recorded before.
  json back = json::array();
  for (const json& step : trace["shown"]) {
    back.push_back({{"step", step["step"]}, {"memory", active(step)}});
  }
  const std::string base_id = base["trace"];
  const json again = replay(base_id, back);
  EXPECT_EQ(again["what_if"]["tokens"], done["original"]["tokens"]);
  EXPECT_NEAR(again["original"]["log_prob_with_change"].get<double>(),
              done["what_if"]["log_prob_as_recorded"].get<double>(), 1e-3);
  EXPECT_NEAR(again["what_if"]["log_prob_as_recorded"].get<double>(),
              done["original"]["log_prob_with_change"].get<double>(), 1e-3);
}

TEST_F(PolicyWhatIfTest, WhatCannotBeAskedSaysWhy) {
  const std::string id = generate({{"policy", "nearest:-1"}});
  const std::string chosen = generate({{"memory", "ferry"}});
  shown(id);
  shown(chosen);
  const auto asked = [&](const std::string& trace, const json& policy) {
    const auto reply = client->admin("trace.choices", {{"trace", trace}, {"policy", policy}});
    return reply ? std::string() : std::string(error_code_name(reply.error().code));
  };
  EXPECT_EQ(asked(id, "base"), "");
  EXPECT_EQ(asked(id, "fixed:clock"), "");
  EXPECT_EQ(asked(chosen, "base"), "mismatch");  // the user chose
  EXPECT_EQ(asked("0000000000000001", "base"), "not_found");
  EXPECT_EQ(asked(id, "nearest:7"), "invalid_argument");
  EXPECT_EQ(asked(id, "cleverest"), "invalid_argument");
  EXPECT_EQ(asked(id, "auto"), "invalid_argument");
  EXPECT_EQ(asked(id, "learned"), "not_found");
  EXPECT_EQ(asked(id, "learned:0123"), "not_found");
  EXPECT_EQ(asked(id, "fixed:nobody"), "not_found");
  EXPECT_EQ(refused("trace.choices", {{"trace", id}}), ErrorCode::kInvalidArgument);
  const auto replayed = [&](const json& list) {
    return refused("replay", {{"trace", id}, {"what_if", {{"choices", list}}}});
  };
  const json first = {{"step", 0}, {"memory", "base"}}, last = {{"step", 3}, {"memory", "base"}};
  EXPECT_EQ(replayed({first, last}), std::nullopt);
  EXPECT_EQ(replayed(json::array()), ErrorCode::kInvalidArgument);
  EXPECT_EQ(replayed({last, first}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(replayed({first, first}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(replayed({first, {{"step", 4}, {"memory", "base"}}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(replayed({{{"step", 0}, {"slot", std::uint64_t{1} << 32}, {"memory", "base"}}}),
            ErrorCode::kInvalidArgument);
  // A version that is gone: its memory's traces went with it, and these two are of others.
  const std::string base = generate({{"policy", "nearest:1"}});
  shown(base);
  const json wanted = choices(base, "fixed:ferry")["choices"];
  ASSERT_FALSE(wanted.empty());
  must(client->admin("bank.rm", {{"memory", "ferry"}}));
  EXPECT_EQ(refused("replay", {{"trace", base}, {"what_if", {{"choices", wanted}}}}),
            ErrorCode::kNotFound);
}

TEST(TraceWithoutFeatures, CannotBeAskedOfAnotherPolicy) {
  Pair pair("", {}, {"--trace-features=false"});
  pair.start();
  Client client(pair.endpoint);
  must(client.wait_connected());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!client.task("status", json::object(), nullptr, std::chrono::seconds(2))) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "no generator answers";
  }
  const json done = must(client.task(
      "generate",
      {{"prompt", "The ferry"}, {"policy", "nearest"}, {"max_tokens", 4}, {"deadline_ms", 30000}}));
  const std::string id = done["trace"];
  for (bool ended = false; !ended;) {
    ended = must(client.admin("trace.show", {{"trace", id}}))["ended"];
  }
  const auto reply = client.admin("trace.choices", {{"trace", id}, {"policy", "base"}});
  ASSERT_FALSE(reply) << reply.value();
  EXPECT_EQ(reply.error().code, ErrorCode::kMismatch);
  EXPECT_NE(reply.error().message.find("--trace-features"), std::string::npos)
      << reply.error().message;
}

TEST_F(TraceTest, IsFoundByMemorySourceAndPolicyAndGoesWithItsMemory) {
  const std::string ferry = generate({{"memory", "ferry"}});
  const std::string base = generate({{"memory", "base"}});
  const std::string clock = generate({{"memory", "clock"}});
  for (const std::string& id : {ferry, base, clock}) shown(id);
  const auto found = [&](const json& query) {
    std::vector<std::string> out;
    const json reply = must(client->admin("trace.ls", query));
    for (const json& one : reply["traces"]) out.push_back(one["trace"]);
    return out;
  };
  EXPECT_EQ(found(json::object()).size(), 3u);
  EXPECT_EQ(found({{"memory", "ferry"}}), (std::vector{ferry}));
  EXPECT_EQ(found({{"source", "clock"}}), (std::vector{clock}));
  EXPECT_EQ(found({{"source", "clock"}, {"memory", "ferry"}}), (std::vector<std::string>{}));
  must(client->admin("bank.rm", {{"memory", "ferry"}}));
  EXPECT_EQ(found(json::object()).size(), 2u);
  EXPECT_EQ(refused("trace.show", {{"trace", ferry}}), ErrorCode::kNotFound);
  must(client->admin("trace.rm", {{"trace", base}}));
  EXPECT_EQ(found(json::object()), (std::vector{clock}));
}

TEST_F(TraceTest, WhatCannotBeReplayedSaysWhy) {
  const std::string id = generate({{"policy", "nearest:-1"}});
  shown(id);
  EXPECT_EQ(refused("replay", {{"trace", "0000000000000001"}}), ErrorCode::kNotFound);
  EXPECT_EQ(refused("replay", {{"trace", "../../etc/passwd"}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused("trace.show", {{"trace", id}, {"stesp", 3}}), ErrorCode::kInvalidArgument);
  const auto what_if = [&](const json& change) {
    return refused("replay", {{"trace", id}, {"what_if", change}});
  };
  EXPECT_EQ(what_if({{"step", 99}, {"memory", "ferry"}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(what_if({{"step", 1}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(what_if({{"step", 1}, {"memory", "nowhere"}}), ErrorCode::kNotFound);
  EXPECT_EQ(what_if({{"step", 1}, {"memory", "secret/ferry"}}), ErrorCode::kNotFound);
  // Not recorded where nobody wants it.
  const json last = must(client->task("generate", {{"prompt", "x"}, {"trace", false}}));
  EXPECT_FALSE(last.contains("trace"));
  // A flipped byte: shown up to it, not replayed.
  EXPECT_EQ(pair.controller.kill(SIGTERM), 0);
  const std::string path = pair.folder.path() + "/bank.traces/" + id + ".trace";
  std::string bytes = slurp(path);
  bytes[bytes.size() - 40] = static_cast<char>(bytes[bytes.size() - 40] ^ 4);
  std::ofstream(path, std::ios::binary) << bytes;
  pair.controller.start();
  connect();
  const json damaged = must(client->admin("trace.show", {{"trace", id}}));
  EXPECT_TRUE(damaged.contains("damage"));
  EXPECT_EQ(refused("replay", {{"trace", id}}), ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot
