#include "tests/controller/link_peers.h"
#include "tests/support/deep_json.h"

namespace memslot {
namespace {

using std::chrono::milliseconds;

wire::SubmitTask task(const std::string& kind,
                      const nlohmann::json& arguments = nlohmann::json::object()) {
  return {kind, arguments.dump()};
}

wire::OpenSession session() {
  wire::OpenSession open;
  open.session = 5;
  open.incarnation = 100;
  open.model = slot_signature().model;
  open.slots = generator_hello().slots;
  open.namespaces = {"default"};
  open.policy = "fixed:a";
  return open;
}

wire::Observation observation(std::uint64_t step) {
  wire::Observation o;
  o.session = 5;
  o.step = step;
  return o;
}

TEST_F(ServerTest, AnswersHelloWithItsIncarnationAndHeartbeat) {
  start();
  TestPeer peer(*network_, "x", client_hello());
  const auto request = peer.send(peer.said());
  const auto reply = peer.expect<wire::HelloReply>();
  ASSERT_TRUE(reply);
  EXPECT_EQ(peer.request(), request);
  EXPECT_NE(reply->incarnation, 0u);
  EXPECT_EQ(reply->heartbeat_ms, 200u);
}

TEST_F(ServerTest, TellsStrangersToSayHello) {
  start();
  TestPeer peer(*network_, "x", generator_hello());
  peer.send(observation(0));
  peer.expect_error(ErrorCode::kUnavailable);
  EXPECT_EQ(peer.request(), 0u);
  peer.beat();
  peer.expect_error(ErrorCode::kUnavailable);
}

TEST_F(ServerTest, CountsAndAnswersWhatDoesNotDecode) {
  start();
  TestPeer& peer = client();
  peer.send_raw({share_bytes(std::vector<std::byte>(64, std::byte{7}))});
  peer.expect_error(ErrorCode::kCorruption);
  EXPECT_EQ(peer.request(), 0u);
  auto frames = wire::encode({9, wire::AdminRequest{"jobs.ls", "{}"}, {}}).value();
  std::vector<std::byte> cut(frames[0]->begin(), frames[0]->end() - 4);
  peer.send_raw({share_bytes(std::move(cut))});
  peer.expect_error(ErrorCode::kCorruption);
  EXPECT_TRUE(peer.admin("jobs.ls").contains("jobs"));  // it goes on
  stop();
  EXPECT_EQ(counters_.malformed, 2u);
}

TEST_F(ServerTest, OutlivesJsonThatNestsDeeperThanTheStack) {
  start();
  generator();
  TestPeer& peer = client();
  const auto refused = [&](const char* kind, const std::string& before, const std::string& after) {
    peer.send(wire::SubmitTask{kind, deep_json(before, after)});
    EXPECT_EQ(peer.event()["error"], "invalid_argument") << kind;
  };
  refused("generate", R"({"namespaces":[)", "]}");
  refused("generate", R"({"memory":)", "}");
  refused("generate", R"({"schedule":[{"memory":)", "}]}");
  refused("gains", R"({"memories":[)", "]}");
  refused("learn", R"({"text":"words","source":"s","config":{"lr":)", "}}");
  refused("watch", R"({"job":)", "}");
  refused("verify", R"({"namespace":)", "}");
  peer.send(wire::AdminRequest{"bank.ls", deep_json(R"({"prefix":)", "}")});
  peer.expect_error(ErrorCode::kInvalidArgument);
  EXPECT_TRUE(peer.admin("jobs.ls").contains("jobs"));  // it goes on
}

TEST_F(ServerTest, RefusesMessagesOfAnotherRole) {
  start();
  client().send(observation(0));
  peers_[0]->expect_error(ErrorCode::kPermission);
  generator().send(wire::AdminRequest{"jobs.ls", "{}"});
  peers_[1]->expect_error(ErrorCode::kPermission);
}

TEST_F(ServerTest, ServesASessionFromOpeningToClose) {
  const auto version = publish("a");
  start();
  TestPeer& g = generator();
  g.send(session());
  EXPECT_EQ(g.expect<wire::OpenSessionReply>()->policy, "fixed:a");
  std::vector<SharedBytes> parts;
  const auto request = g.send(observation(0));
  const auto directive = g.expect<wire::Directive>(&parts);
  ASSERT_TRUE(directive);
  EXPECT_EQ(g.request(), request);
  ASSERT_EQ(directive->actions.size(), 1u);
  EXPECT_EQ(directive->actions[0].ref, version.ref);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(sha256(*parts[0]), version.sha256);
  g.send(wire::FetchMemory{5, {.ns = "default", .id = "a"}});
  EXPECT_EQ(g.expect<wire::MemoryReply>(&parts)->version.token, version.token);
  EXPECT_EQ(sha256(*parts.at(0)), version.sha256);
  g.send(wire::CloseSession{5, observation(1)});
  EXPECT_EQ(g.expect<wire::CloseSessionReply>()->session, 5u);
  g.send(observation(2));
  g.expect_error(ErrorCode::kNotFound);
}

TEST_F(ServerTest, StoresAWriteBack) {
  const auto version = publish("a");
  start();
  TestPeer& g = generator();
  g.send(session());
  g.expect<wire::OpenSessionReply>();
  const MemoryPayload changed = small_payload(2.0f);
  wire::WriteBack write;
  write.session = 5;
  write.expected = version.token;
  write.version = version;
  write.version.token = "retry-1";
  write.version.sha256 = sha256(changed.bytes());
  const SharedBytes bytes = share_bytes({changed.bytes().begin(), changed.bytes().end()});
  for (int i = 0; i < 2; ++i) {  // the second is a retry
    g.send(write, {bytes});
    const auto reply = g.expect<wire::WriteBackReply>();
    ASSERT_TRUE(reply);
    EXPECT_FALSE(reply->conflict);
    EXPECT_EQ(reply->version.ref.version, 2u);
  }
}

TEST_F(ServerTest, KnowsNoSessionAfterARestartAndOpensItAgain) {
  publish("a");
  start();
  TestPeer& g = generator();
  g.send(session());
  g.expect<wire::OpenSessionReply>();
  g.send(observation(0));
  const auto before = g.expect<wire::Directive>();
  stop();
  serve();
  TestPeer again(*network_, "g100b", generator_hello());
  again.hello();
  again.send(observation(0));
  again.expect_error(ErrorCode::kNotFound);
  again.send(session());
  again.expect<wire::OpenSessionReply>();
  again.send(observation(0));
  EXPECT_EQ(again.expect<wire::Directive>()->actions[0].ref, before->actions[0].ref);
}

TEST_F(ServerTest, RelaysATaskAndItsEvents) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  const auto request = c.send(task("generate", {{"prompt", "Once"}, {"memory", "auto"}}));
  const auto assigned = g.expect<wire::AssignTask>();
  ASSERT_TRUE(assigned);
  EXPECT_EQ(assigned->kind, "generate");
  EXPECT_EQ(nlohmann::json::parse(assigned->arguments)["prompt"], "Once");
  c.send_as(request, task("generate", {{"prompt", "Once"}}));  // a retry: nothing new begins
  for (int i = 0; i < 3; ++i) {
    g.send_as(assigned->task, wire::TaskEvent{assigned->task, R"({"type":"step"})", false, {}});
    EXPECT_EQ(c.event()["type"], "step");
    EXPECT_EQ(c.request(), request);
  }
  g.send_as(assigned->task, wire::TaskEvent{assigned->task, R"({"type":"done"})", true, {}});
  bool final = false;
  EXPECT_EQ(c.event(&final)["type"], "done");
  EXPECT_TRUE(final);
  g.send_as(assigned->task, wire::TaskEvent{assigned->task, R"({"type":"step"})", false, {}});
  EXPECT_EQ(g.expect<wire::CancelTask>()->task, assigned->task);  // nobody listens any more
}

TEST_F(ServerTest, PassesOnAFailureAndARefusal) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(task("score", {{"text", "x"}}));
  auto assigned = g.expect<wire::AssignTask>();
  g.send_as(assigned->task, wire::TaskEvent{assigned->task, "{}", true,
                                            wire::ErrorReply{ErrorCode::kInvalidArgument, "text"}});
  EXPECT_EQ(c.event()["error"], "invalid_argument");
  c.send(task("score", {{"text", "x"}}));
  assigned = g.expect<wire::AssignTask>();
  g.send_as(assigned->task, wire::ErrorReply{ErrorCode::kOverloaded, "later"});
  EXPECT_EQ(c.event()["error"], "overloaded");
}

TEST_F(ServerTest, GivesTasksToTheGeneratorWithTheFewest) {
  start();
  TestPeer& a = generator(100);
  TestPeer& b = generator(101);
  TestPeer& c = client();
  for (int i = 0; i < 4; ++i) c.send(task("tokenize", {{"text", "x"}}));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(a.expect<wire::AssignTask>());
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(b.expect<wire::AssignTask>());
}

TEST_F(ServerTest, EndsTasksWithoutAGenerator) {
  start();
  TestPeer& c = client();
  c.send(task("generate", {{"prompt", "x"}}));
  EXPECT_EQ(c.event()["error"], "unavailable");
  c.send(task("dance"));
  EXPECT_EQ(c.event()["error"], "invalid_argument");
  c.send(wire::SubmitTask{"generate", "not json"});
  EXPECT_EQ(c.event()["error"], "invalid_argument");
  c.send(task("gains", {{"memories", "a"}}));
  EXPECT_EQ(c.event()["error"], "invalid_argument");
  c.send(task("gains", {{"memories", {"a", "No/Name"}}}));
  EXPECT_EQ(c.event()["error"], "invalid_argument");
}

TEST_F(ServerTest, EndsTheTasksOfALostGeneratorAndFreesItsJobs) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(task("learn", {{"text", "words"}, {"source", "s"}}));
  EXPECT_EQ(c.event()["type"], "job");
  EXPECT_EQ(g.expect<wire::AssignLearn>()->lease, 1u);
  c.send(task("generate", {{"prompt", "x"}}));
  ASSERT_TRUE(g.expect<wire::AssignTask>());
  std::string failed;
  TestPeer other(*network_, "g2", generator_hello(101));
  for (int i = 0; i < 20 && failed.empty(); ++i) {  // g says nothing more
    c.beat();
    const auto message = c.next(milliseconds(100));
    const auto* event = message ? std::get_if<wire::TaskEvent>(&message->body) : nullptr;
    if (event != nullptr && event->error) failed = error_code_name(event->error->code);
  }
  EXPECT_EQ(failed, "unavailable");
  other.hello();
  EXPECT_EQ(other.expect<wire::AssignLearn>()->lease, 2u);
}

TEST_F(ServerTest, EndsTasksWhenTheirGeneratorWasStartedAgain) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(task("generate", {{"prompt", "x"}}));
  ASSERT_TRUE(g.expect<wire::AssignTask>());
  g.said().incarnation = 999;
  g.send(g.said());
  EXPECT_EQ(c.event()["error"], "unavailable");
}

TEST_F(ServerTest, MovesSessionsAndLeasesToAGeneratorsNewConnection) {
  publish("a");
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  g.send(session());
  g.expect<wire::OpenSessionReply>();
  c.send(task("learn", {{"text", "words"}, {"source", "s"}}));
  c.event();
  const auto leased = g.expect<wire::AssignLearn>();
  TestPeer moved(*network_, "elsewhere", generator_hello(100));
  moved.hello();
  moved.send(observation(0));
  EXPECT_TRUE(moved.expect<wire::Directive>());
  moved.send_as(0, wire::LearnProgress{leased->job, 1, 3, 10, 0.5f, 0.1f, "training"});
  bool trained = false;
  for (int i = 0; i < 3 && !trained; ++i) trained = c.event()["phase"] == "training";
  EXPECT_TRUE(trained);
}

TEST_F(ServerTest, CancelsATaskAtItsGenerator) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  const auto request = c.send(task("generate", {{"prompt", "x"}}));
  const auto assigned = g.expect<wire::AssignTask>();
  c.send_as(0, wire::CancelTask{0, request});
  EXPECT_EQ(g.expect<wire::CancelTask>()->task, assigned->task);
  g.send_as(assigned->task, wire::TaskEvent{assigned->task, "{}", true,
                                            wire::ErrorReply{ErrorCode::kCancelled, "stopped"}});
  EXPECT_EQ(c.event()["error"], "cancelled");
}

TEST_F(ServerTest, DropsTheTaskOfAClientThatDoesNotReadAndServesTheOthers) {
  start(quick_settings(), {.max_pending_bytes = 64 << 10});
  TestPeer& g = generator();
  TestPeer& slow = client(500);
  TestPeer& quick = client(501);
  slow.send(task("generate", {{"prompt", "x"}}));
  const auto for_slow = g.expect<wire::AssignTask>();
  quick.send(task("generate", {{"prompt", "y"}}));
  const auto for_quick = g.expect<wire::AssignTask>();
  const std::string big = R"({"type":"step","text":")" + std::string(8 << 10, 'x') + "\"}";
  for (int i = 0; i < 12; ++i) {
    g.send_as(for_slow->task, wire::TaskEvent{for_slow->task, big, false, {}});
    g.send_as(for_quick->task, wire::TaskEvent{for_quick->task, big, false, {}});
    EXPECT_EQ(quick.event()["type"], "step");
  }
  EXPECT_EQ(g.expect<wire::CancelTask>()->task, for_slow->task);
  std::string last;
  while (last.empty()) {
    const auto event = slow.event();
    ASSERT_FALSE(event.is_null());
    if (event.contains("error")) last = event["error"];
  }
  EXPECT_EQ(last, "overloaded");
  g.send_as(for_quick->task, wire::TaskEvent{for_quick->task, R"({"type":"done"})", true, {}});
  EXPECT_EQ(quick.event()["type"], "done");
}

TEST_F(ServerTest, LearnsWithProgressAndTellsTheWatchers) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(task("learn", {{"text", "The light was lit."},
                        {"source", "Skerrow Light"},
                        {"config", {{"kind", "lora"}}}}));
  const auto job = c.event()["job"].get<std::string>();
  const auto leased = g.expect<wire::AssignLearn>();
  ASSERT_TRUE(leased);
  EXPECT_EQ(leased->target.text(), "default/skerrow-light-lora");
  EXPECT_EQ(leased->text, "The light was lit.");
  g.send_as(0, wire::LearnProgress{job, 1, 3, 10, 0.5f, 0.25f, "training"});
  nlohmann::json seen = nlohmann::json::object();
  for (int i = 0; i < 3 && seen.value("phase", "") != "training"; ++i) seen = c.event();
  EXPECT_EQ(seen["step"], 3);
  EXPECT_EQ(seen["recall"], 0.25);

  const MemoryPayload payload = small_payload(1.0f);
  wire::LearnResult result{.job = job, .lease = 1, .version = {}};
  result.version.ref = leased->target;
  result.version.signature = payload.signature();
  result.version.dtype = payload.dtype();
  result.version.payload_bytes = payload.bytes().size();
  result.version.sha256 = sha256(payload.bytes());
  result.version.stats.recall = 0.5;
  const std::vector<float> keys(2 * kDim, 1.0f);
  const auto key_bytes = std::as_bytes(std::span(keys));
  g.send(result, {share_bytes({payload.bytes().begin(), payload.bytes().end()}),
                  share_bytes({key_bytes.begin(), key_bytes.end()})});
  EXPECT_TRUE(g.expect<wire::LearnAck>()->accepted);
  bool final = false;
  const auto learned = c.event(&final);
  EXPECT_TRUE(final);
  EXPECT_EQ(learned["type"], "learned");
  EXPECT_EQ(learned["memory"], "default/skerrow-light-lora@1");
  EXPECT_EQ(learned["stats"]["recall"], 0.5);
  c.send(task("watch", {{"job", job}}));
  EXPECT_EQ(c.event()["type"], "learned");
  EXPECT_EQ(c.admin("bank.show", {{"memory", "skerrow-light-lora"}})["source_text"],
            "The light was lit.");
  EXPECT_EQ(c.admin("jobs.ls", {{"state", "done"}})["jobs"].size(), 1u);
}

TEST_F(ServerTest, RefusesToLearnWhereNoGeneratorReadsTextAndWaitsWhereNoneIsThere) {
  start();
  TestPeer& c = client();
  const auto learn = task("learn", {{"text", "The light was lit."}, {"source", "skerrow"}});
  c.send(learn);
  ASSERT_EQ(c.event()["type"], "job") << "a generator may come";
  EXPECT_EQ(c.event()["phase"], "queued");
  generator(100, /*workers=*/0);
  TestPeer& other = client(501);
  other.send(learn);
  EXPECT_EQ(other.event()["error"], "not_found");
  EXPECT_EQ(other.admin("jobs.ls")["jobs"].size(), 1u);
  TestPeer& able = generator(101, /*workers=*/1);
  EXPECT_TRUE(able.expect<wire::AssignLearn>()) << "the one that waited";
  other.send(learn);
  EXPECT_EQ(other.event()["type"], "job");
}

TEST_F(ServerTest, TellsAFencedGeneratorToStop) {
  start();
  TestPeer& g = generator();
  g.send_as(0, wire::LearnProgress{"unknown", 1, 0, 0, 0, 0, "training"});
  EXPECT_EQ(g.expect<wire::CancelLearn>()->job, "unknown");
}

TEST_F(ServerTest, CancelsALearnJobEverywhere) {
  start();
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(task("learn", {{"text", "words"}, {"source", "s"}}));
  const auto job = c.event()["job"].get<std::string>();
  ASSERT_TRUE(g.expect<wire::AssignLearn>());
  TestPeer& other = client(501);
  EXPECT_EQ(other.admin("jobs.cancel", {{"job", job}})["job"]["state"], "cancelled");
  EXPECT_EQ(g.expect<wire::CancelLearn>()->job, job);
  nlohmann::json last = nlohmann::json::object();
  for (int i = 0; i < 3 && !last.contains("error"); ++i) last = c.event();
  EXPECT_EQ(last["error"], "cancelled");
}

TEST_F(ServerTest, LosesNoJobOverARestart) {
  start();
  client().send(task("learn", {{"text", "words"}, {"source", "s"}, {"watch", false}}));
  bool final = false;
  const auto job = peers_[0]->event(&final)["job"].get<std::string>();
  EXPECT_TRUE(final);
  stop();
  serve();
  EXPECT_EQ(generator().expect<wire::AssignLearn>()->job, job);
}

TEST_F(ServerTest, RefusesWrongLearnArguments) {
  start();
  TestPeer& c = client();
  const auto refused = [&](const nlohmann::json& arguments) {
    c.send(task("learn", arguments));
    return c.event().value("error", "none");
  };
  EXPECT_EQ(refused({{"source", "s"}}), "invalid_argument");
  EXPECT_EQ(refused({{"source", "s"}, {"text", ""}}), "invalid_argument");
  EXPECT_EQ(refused({{"source", "s"}, {"text", "x"}, {"sorce", "y"}}), "invalid_argument");
  EXPECT_EQ(refused({{"source", "s"}, {"text", "x"}, {"config", 3}}), "invalid_argument");
  EXPECT_EQ(refused({{"source", "s"}, {"text", "x"}, {"namespace", "No/Name"}}),
            "invalid_argument");
}

TEST_F(ServerTest, RefusesALearnConfigThatNoGeneratorCouldTakeWhenItIsSubmitted) {
  start();
  TestPeer& c = client();
  const auto submit = [&](const std::string& config) {
    c.send(wire::SubmitTask{"learn", R"({"text":"x","source":"s","config":)" + config + "}"});
    return c.event();
  };
  // A client that prints not-a-number as JSON writes null.
  for (const char* option : {"lr", "anchor", "alpha", "rank", "max_steps", "target_recall"}) {
    const auto refused = submit(R"({")" + std::string(option) + R"(":null})");
    EXPECT_EQ(refused.value("error", ""), "invalid_argument") << option;
    const std::string message = refused.value("message", "");
    EXPECT_NE(message.find(option), std::string::npos) << message;
    EXPECT_NE(message.find("found null"), std::string::npos) << message;
  }
  for (const char* config : {R"({"lr":-0.001})", R"({"lr":NaN})", R"({"lr":1e999})",
                             R"({"rank":0})", R"({"kind":"titans"})", R"({"rate":0.1})"}) {
    EXPECT_EQ(submit(config).value("error", ""), "invalid_argument") << config;
  }
  EXPECT_EQ(c.admin("jobs.ls")["jobs"].size(), 0u);
  EXPECT_EQ(submit(R"({"kind":"delta","lr":0.001})").value("type", ""), "job");
}

TEST_F(ServerTest, SendsHeartbeatsAndForgetsTheSilent) {
  ServerSettings settings = quick_settings();
  settings.heartbeat = milliseconds(60);
  start(settings);
  TestPeer& g = generator();
  EXPECT_FALSE(g.next(milliseconds(220)).has_value());
  EXPECT_GE(g.heartbeats(), 2);
  std::this_thread::sleep_for(milliseconds(200));
  g.beat();
  g.expect_error(ErrorCode::kUnavailable);
  stop();
  EXPECT_EQ(counters_.peers_lost, 1u);
}

}  // namespace
}  // namespace memslot
