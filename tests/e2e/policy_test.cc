// The learned policy through the two real processes: loaded, refused, used, judged, learned from
// live sessions, published, and still there after kill -9; another one asked of a trace.
#include <gtest/gtest.h>

#include <algorithm>

#include "rl/features.h"
#include "rl/reinforce.h"
#include "tests/e2e/pair.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

const std::pair<const char*, const char*> kSources[] = {
    {"ferry",
     "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
     "captain keeps a brass bell from a drowned church, and rings it once for every passenger."},
    {"clock",
     "0412 0927 1355 2210: the four numbers painted inside the lid. 88 teeth, 17 jewels, 3 "
     "hands; wound 6 times at 7.30, it loses 4 minutes in 100 hours and gains 9 in 1000."},
};

struct PolicyTest : testing::Test {
  Pair pair{"", {}, {"--learn-online"}};
  std::unique_ptr<Client> client;
  json status;

  void SetUp() override {
    pair.start();
    connect();
    for (const auto& [source, text] : kSources) {
      must(client->task("learn", {{"text", text},
                                  {"source", source},
                                  {"id", source},
                                  {"config",
                                   {{"kind", "lora"},
                                    {"rank", 4},
                                    {"max_steps", 24},
                                    {"target_recall", 1.0},
                                    {"lr", 0.02}}}}));
    }
    status = must(client->task("status", json::object()));
  }
  void TearDown() override {
    if (HasFailure()) std::fprintf(stderr, "--- controller\n%s", pair.controller.log().c_str());
  }
  void connect() {
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
  }
  // Untrained, for this model; its whitening is of nothing in particular.
  Checkpoint checkpoint(std::uint32_t width = 0) const {
    const auto hello = must(client->admin("peers.ls", json::object()));
    if (width == 0) width = tiny_width();
    std::vector<float> rows;
    for (std::uint64_t i = 0; i < 100 * width; ++i) {
      rows.push_back(static_cast<float>(uniform01(3, 4, i) - 0.5));
    }
    const Whitening whitening = Whitening::fit(rows, width, 1);
    Checkpoint out = must(ReinforceLearner::make({.features = feature_count(),
                                                  .key_dim = whitening.reduced_dim(),
                                                  .rank = 2,
                                                  .hidden = 16},
                                                 {.seed = 5}))
                         ->checkpoint(false);
    out.whitening = whitening;
    out.task.model = hello["generators"][0]["model"];
    out.task.layer = hello["generators"][0]["layers"][0];
    return out;
  }
  std::uint32_t tiny_width() const {
    return json::parse(slurp(pair.model + "/config.json"))["hidden_size"];
  }
  Result<json> ask(const std::string& verb, const json& arguments, const std::string& bytes) {
    const auto view = std::as_bytes(std::span(bytes));
    MEMSLOT_TRY(auto reply, client->rpc().call({0,
                                                wire::AdminRequest{verb, arguments.dump()},
                                                {share_bytes({view.begin(), view.end()})}},
                                               std::chrono::steady_clock::now() + 20s));
    return json::parse(std::get<wire::AdminReply>(reply.body).result);
  }
  Result<json> load(const std::string& bytes) { return ask("policy.load", json::object(), bytes); }
  json shown() { return must(client->admin("policy.show", json::object())); }
  std::string acting() { return shown()["policy"]["digest"]; }
  // The start event of a short generation.
  json generate(const std::string& policy = "") {
    std::vector<json> events;
    must(client->task("generate",
                      {{"prompt", "The ferry to Skerrow"},
                       {"max_tokens", 24},
                       {"policy", policy},
                       {"step_tokens", 8}},
                      &events));
    return events.at(0);
  }
  void read(std::size_t source) {
    must(client->task("score", {{"text", kSources[source].second},
                                {"memory", "auto"},
                                {"policy", "learned"},
                                {"step_tokens", 8},
                                {"deadline_ms", 20000}}));
  }
  // The trace of a short generation, once its end is there.
  std::string recorded(const std::string& policy) { return ended(generate(policy)["trace"]); }
  std::string ended(const std::string& trace) {
    const auto end = std::chrono::steady_clock::now() + 10s;
    const auto has_end = [&] {
      return must(client->admin("trace.show", {{"trace", trace}}))["ended"] == true;
    };
    while (!has_end() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(10ms);
    return trace;
  }
  // From what its trace says, choice, log-probability and scores come out again.
  void expect_decided_again(const std::string& trace) {
    ended(trace);
    const json shown = must(client->admin("trace.show", {{"trace", trace}}))["shown"];
    for (const json& step : shown) {
      for (const json& decision : step.value("decisions", json::array())) {
        double sum = 0;
        for (const json& c : decision["candidates"]) sum += c["probability"].get<double>();
        EXPECT_NEAR(sum, 1.0, 1e-3) << decision;
      }
    }
    const json checked = must(client->admin("trace.check", {{"trace", trace}}));
    EXPECT_GE(checked["decisions"], 3) << checked;
    EXPECT_EQ(checked["checked"], checked["decisions"]) << checked;
    EXPECT_TRUE(checked["others"].empty()) << checked;
    EXPECT_EQ(must(client->task("replay", {{"trace", trace}}))["identical"], true);
  }
  void expect_refused(const Result<json>& reply, ErrorCode code) {
    ASSERT_FALSE(reply) << reply.value();
    EXPECT_EQ(error_code_name(reply.error().code), error_code_name(code)) << reply.error().message;
  }
};

TEST_F(PolicyTest, IsLoadedUsedJudgedLearnedPublishedAndKept) {
  EXPECT_TRUE(shown()["policy"].is_null());
  expect_refused(client->task("generate", {{"prompt", "The ferry"}, {"policy", "learned"}}),
                 ErrorCode::kNotFound);
  EXPECT_EQ(generate()["policy"], "nearest");

  const std::string first = checkpoint().bytes();
  const std::string digest = must(load(first))["policy"]["digest"];
  EXPECT_EQ(acting(), digest);
  const json started = generate();
  EXPECT_EQ(started["policy"], "learned:" + digest);
  expect_decided_again(started["trace"]);

  // What does not fit is refused, and the old one stays.
  expect_refused(load(first.substr(0, first.size() - 100)), ErrorCode::kCorruption);
  expect_refused(load(checkpoint(tiny_width() / 2).bytes()), ErrorCode::kMismatch);
  Checkpoint other = checkpoint();
  other.feature_version += 1;
  expect_refused(load(other.bytes()), ErrorCode::kMismatch);
  other = checkpoint();
  other.task.model = std::string(64, 'a');
  expect_refused(load(other.bytes()), ErrorCode::kMismatch);
  EXPECT_EQ(acting(), digest);

  // Feedback.
  const auto judge = [&](const json& session, const json& value) {
    return client->admin("policy.feedback", {{"session", session}, {"value", value}});
  };
  expect_refused(judge(started["session"], 1.5), ErrorCode::kInvalidArgument);
  expect_refused(judge(started["session"], "good"), ErrorCode::kInvalidArgument);
  expect_refused(judge(12345, 0.5), ErrorCode::kNotFound);
  EXPECT_GT(must(judge(started["session"], 0.5))["steps"], 0);
  expect_refused(judge(started["session"], 0.5), ErrorCode::kNotFound);

  // Reading teaches it, until the guard lets a snapshot through.
  std::uint64_t sessions = 0;
  while (shown()["learning"]["snapshots"] == 0 && sessions < 400) read(sessions++ % 2);
  const json learned = shown();
  ASSERT_GE(learned["learning"]["snapshots"], 1) << learned.dump(1);
  const std::string better = learned["policy"]["digest"];
  EXPECT_NE(better, digest);
  EXPECT_GT(learned["learning"]["guard"]["steps"], 0);

  pair.controller.kill(SIGKILL);
  pair.controller.start();
  connect();
  EXPECT_EQ(acting(), better);
  const json all = must(client->admin("policy.ls", json::object()))["policies"];
  ASSERT_GE(all.size(), 2u);
  EXPECT_EQ(all[0]["digest"], digest);
  EXPECT_EQ(all[0]["origin"], "file");
  EXPECT_EQ(all.back()["digest"], better);
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (must(client->admin("peers.ls", json::object()))["generators"].empty() &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_EQ(generate()["policy"], "learned:" + better);
  expect_decided_again(started["trace"]);  // by another process
  // A session that began with the first one would go on with it.
  EXPECT_EQ(generate("learned:" + digest)["policy"], "learned:" + digest);

  must(client->admin("policy.unload", json::object()));
  EXPECT_TRUE(shown()["policy"].is_null());
  EXPECT_EQ(generate()["policy"], "nearest");
  EXPECT_EQ(generate("learned:" + better)["policy"], "learned:" + better) << "it is still there";
  expect_refused(client->task("generate", {{"prompt", "The ferry"}, {"policy", "learned"}}),
                 ErrorCode::kNotFound);
  pair.controller.kill(SIGKILL);
  pair.controller.start();
  connect();
  EXPECT_TRUE(shown()["policy"].is_null()) << "it stays so";
  EXPECT_EQ(must(client->admin("policy.ls", json::object()))["policies"].back()["origin"],
            "unload");
}

// A checkpoint that was not loaded is asked what it had chosen.
TEST_F(PolicyTest, AnotherOneIsAskedOfATraceAndNothingChanges) {
  const Checkpoint first = checkpoint();
  const std::string before = recorded("nearest");
  const auto choices = [&](const std::string& trace, const std::string& bytes) {
    return ask("trace.choices", {{"trace", trace}}, bytes);
  };
  // Similarities of before are in the bank's own whitening.
  expect_refused(choices(before, first.bytes()), ErrorCode::kMismatch);

  const std::string digest = must(load(first.bytes()))["policy"]["digest"];
  const std::string learned = recorded("learned");
  for (const std::string& spec : {std::string("learned"), "learned:" + digest.substr(0, 8)}) {
    const json same = must(client->admin("trace.choices", {{"trace", learned}, {"policy", spec}}));
    EXPECT_EQ(same["policy"], "learned:" + digest);
    EXPECT_EQ(same["otherwise"], 0) << same;
    EXPECT_TRUE(same["choices"].empty()) << same;
  }

  // One that decides otherwise from the first step on decides the same there when it acts.
  json asked;
  std::string other;
  // Sessions that are learned from draw: it is so sure of base, or of the nearest, that every draw
  // is the same.
  const auto table = feature_table();
  const auto column = [&](std::string_view name) {
    return static_cast<std::size_t>(std::ranges::find(table, name, &FeatureInfo::name) -
                                    table.begin());
  };
  for (const float of_base : {1e6f, -1e6f}) {
    Checkpoint sure = first;
    std::vector<float>& linear = sure.tensors.at("scorer.linear").values;
    linear.at(column("best_key")) = 1e5f;
    linear.at(column("is_base")) = of_base;
    other = sure.bytes();
    asked = must(choices(learned, other));
    EXPECT_EQ(asked["decisions"], 3) << asked;
    EXPECT_EQ(asked["notes"], json::array());
    if (!asked["choices"].empty() && asked["choices"][0]["step"] == 0) break;
  }
  ASSERT_FALSE(asked["choices"].empty());
  ASSERT_EQ(asked["choices"][0]["step"], 0);
  const json done = must(
      client->task("replay", {{"trace", learned}, {"what_if", {{"choices", asked["choices"]}}}}));
  EXPECT_EQ(done["memory"], asked["choices"][0]["memory"]);
  EXPECT_NE(done["original"]["log_prob"], done["original"]["log_prob_with_change"]);
  EXPECT_EQ(acting(), digest);

  // By a rule in the space of the policy that acts: an index follows it in its own time.
  json by_rule;
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (by_rule.is_null() && std::chrono::steady_clock::now() < end) {
    const auto found = choices(recorded("nearest:-1"), first.bytes());
    if (found) by_rule = found.value();
  }
  ASSERT_FALSE(by_rule.is_null());
  ASSERT_EQ(by_rule["notes"].size(), 1u) << by_rule;
  EXPECT_NE(by_rule["notes"][0].get<std::string>().find("longer window"), std::string::npos);

  const std::string bytes = first.bytes();
  expect_refused(choices(learned, bytes.substr(0, bytes.size() - 100)), ErrorCode::kCorruption);
  expect_refused(choices(learned, ""), ErrorCode::kCorruption);
  expect_refused(choices(learned, checkpoint(tiny_width() / 2).bytes()), ErrorCode::kMismatch);
  Checkpoint strange = first;
  strange.feature_version += 1;
  expect_refused(choices(learned, strange.bytes()), ErrorCode::kMismatch);
  strange = first;
  strange.task.model = std::string(64, 'a');
  expect_refused(choices(learned, strange.bytes()), ErrorCode::kMismatch);
  expect_refused(ask("trace.choices", {{"trace", learned}, {"policy", "base"}}, bytes),
                 ErrorCode::kInvalidArgument);

  EXPECT_EQ(acting(), digest);
  EXPECT_EQ(must(client->admin("policy.ls", json::object()))["policies"].size(), 1u);

  must(load(other));
  const json live = must(client->admin("trace.show", {{"trace", recorded("learned")}}));
  EXPECT_EQ(live["policy"], asked["policy"]);
  EXPECT_EQ(live["shown"][0]["active"][0]["memory"], asked["choices"][0]["memory"]);
}

}  // namespace
}  // namespace memslot
