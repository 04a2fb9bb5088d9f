// The tasks of docs/formats/tasks.md on the tiny model, events and errors.
#include "generator/runtime/tasks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <nlohmann/json.hpp>

#include "generator/runtime/bench_task.h"
#include "generator/runtime/task_service.h"
#include "generator/runtime/write_back.h"
#include "shared/wire/limits.h"
#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;
using nlohmann::json;

struct TasksTest : testing::Test {
  TinyEngine tiny{{2}};
  std::vector<json> events;
  std::function<void(const json&)> on_event = [](const json&) {};
  std::stop_source stop;

  void SetUp() override { tiny.connect(); }
  using Task = Result<std::string> (*)(const TaskContext&, std::string_view);
  Result<std::string> run(Task task, const json& arguments) {
    events.clear();
    const auto keep = [&](std::string e) {
      events.push_back(json::parse(e));
      on_event(events.back());
    };
    return task({*tiny.engine, stop.get_token(), keep, keep}, arguments.dump());
  }
  json done(Task task, const json& arguments) { return json::parse(must(run(task, arguments))); }
  ErrorCode code(Task task, const json& arguments) {
    const auto result = run(task, arguments);
    EXPECT_FALSE(result.has_value());
    return result ? ErrorCode::kInternal : result.error().code;
  }
  FakeController::Stored delta(std::int64_t position = 0, const std::string& id = "d") {
    const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
    const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                       MemoryKind::kDelta, sha256(outer->bytes()));
    const DeltaShape shape = tiny.outer->shape();
    DeltaStateValues values = DeltaStateValues::zero(shape);
    values.position = position;
    return stored(id, must(make_delta_state(signature, shape, values)));
  }
  static double position_of(const SharedBytes& state) {
    return must(must(MemoryPayload::parse(*state)).scalar("position"));
  }
};

TEST_F(TasksTest, TheLatestStateIsWrittenBackAfterTheOneThatIsUnderWay) {
  const MemoryVersion origin = delta().version;  // publishes the outer parameters
  std::atomic<bool> away{true};
  std::vector<wire::WriteBack> backs;
  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes& payload) {
    if (away) return FakeController::Answer{wire::ErrorReply{ErrorCode::kOverloaded, "later"}, {}};
    EXPECT_EQ(back.version.sha256, sha256(*payload));
    backs.push_back(back);
    MemoryVersion version = back.version;
    version.ref.version = 1 + backs.size();
    return FakeController::Answer{wire::WriteBackReply{false, version}, {}};
  };
  wire::OpenSession open;
  open.session = 5;
  open.incarnation = 77;
  open.model = tiny.digest;
  open.namespaces = {"default"};
  open.policy = "base";
  open.sampling = "{}";
  WriteBack write_back(*tiny.outbox, open, origin);
  for (const std::uint64_t position : {10u, 20u, 30u, 30u}) {
    const auto state = delta(static_cast<std::int64_t>(position));
    must(write_back.write(position / 10, position, must(MemoryPayload::parse(*state.payload))));
  }
  EXPECT_TRUE(write_back.wait(tiny.clock.now()).pending);
  away = false;
  const auto outcome = write_back.wait(tiny.clock.now() + std::chrono::seconds(10));
  EXPECT_TRUE(outcome.stored);
  EXPECT_FALSE(outcome.pending);
  EXPECT_EQ(outcome.memory, "default/d@3");
  ASSERT_EQ(backs.size(), 2u);
  EXPECT_EQ(backs[0].version.position, 10u);
  EXPECT_EQ(backs[1].version.position, 30u);
  EXPECT_EQ(backs[1].expected, backs[0].version.token);
}

TEST_F(TasksTest, AStateThatWasWrittenBackAfterItsStepIsNotWrittenAgainAtTheEnd) {
  tiny.controller.store(delta());
  std::atomic<int> backs{0};
  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes&) {
    MemoryVersion version = back.version;
    version.ref.version = static_cast<std::uint64_t>(2 + backs++);
    return FakeController::Answer{wire::WriteBackReply{false, version}, {}};
  };
  const json last = done(generate_task, {{"prompt", "hello"},
                                         {"memory", "d"},
                                         {"max_tokens", 4},
                                         {"step_tokens", 4},
                                         {"write_back", true},
                                         {"write_back_every", 1}});
  EXPECT_EQ(backs, 1);
  EXPECT_EQ(last["write_back"], "default/d@2");
}

TEST_F(TasksTest, EachStateOfAScheduleGoesBackToItsOwnMemory) {
  tiny.controller.store(delta(0, "d"));
  tiny.controller.store(delta(0, "e"));
  struct Back {
    std::string id, expected;
    double position;
  };
  std::vector<Back> backs;
  std::map<std::string, std::uint64_t> versions;
  std::atomic<int> back_in_the_bank{0};
  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes& payload) {
    MemoryVersion version = back.version;
    version.ref.version = 2 + versions[version.ref.id]++;
    backs.push_back({version.ref.id, back.expected, position_of(payload)});
    version.token = "token-" + version.ref.id + "-" + std::to_string(version.ref.version);
    tiny.controller.store({version, payload});
    ++back_in_the_bank;
    return FakeController::Answer{wire::WriteBackReply{false, version}, {}};
  };
  // Step 3 asks for d again: only once its new version is in the bank is it certain to get that.
  on_event = [&](const json& event) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (event["type"] == "step" && event["step"] == 2 && back_in_the_bank < 2 &&
           std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  const json last = done(generate_task, {{"prompt", "hello"},
                                         {"memory", "d"},
                                         {"max_tokens", 16},
                                         {"step_tokens", 4},
                                         {"write_back", true},
                                         {"schedule",
                                          {{{"step", 1}, {"memory", "e"}},
                                           {{"step", 2}, {"memory", "base"}},
                                           {{"step", 3}, {"memory", "d"}}}}});
  ASSERT_EQ(backs.size(), 3u);
  // d read the prompt's first four tokens and its own step; e one step; d another.
  EXPECT_EQ(backs[0].id, "d");
  EXPECT_EQ(backs[0].expected, "token-d-1");
  EXPECT_EQ(backs[0].position, 8);
  EXPECT_EQ(backs[1].id, "e");
  EXPECT_EQ(backs[1].expected, "token-e-1");
  EXPECT_EQ(backs[1].position, 4);
  EXPECT_EQ(backs[2].id, "d");
  EXPECT_EQ(backs[2].expected, "token-d-2");
  EXPECT_EQ(backs[2].position, 12);
  EXPECT_EQ(last["write_back"], "default/d@3");
  std::map<std::string, std::string> told;
  for (const json& one : last["write_backs"]) told[one["from"]] = one["write_back"];
  EXPECT_EQ(told, (std::map<std::string, std::string>{{"default/d@1", "default/d@2"},
                                                      {"default/e@1", "default/e@2"},
                                                      {"default/d@2", "default/d@3"}}));
}

TEST_F(TasksTest, APinnedVersionThatComesBackGoesOnFromItsStateAndItsOwnHead) {
  tiny.controller.store(delta(0, "d"));
  tiny.controller.store(delta(0, "e"));
  std::vector<std::string> expected;
  std::vector<double> positions;
  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes& payload) {
    MemoryVersion version = back.version;
    version.ref.version = 9;
    expected.push_back(version.ref.id + " " + back.expected);
    positions.push_back(position_of(payload));
    version.token = "after-" + version.ref.id;
    return FakeController::Answer{wire::WriteBackReply{false, version}, {}};
  };
  done(generate_task,
       {{"prompt", "hello"},
        {"memory", "d"},
        {"max_tokens", 12},
        {"step_tokens", 4},
        {"write_back", true},
        {"schedule", {{{"step", 1}, {"memory", "e"}}, {{"step", 2}, {"memory", "d"}}}}});
  EXPECT_EQ(expected, (std::vector<std::string>{"d token-d-1", "e token-e-1", "d after-d"}));
  EXPECT_EQ(positions, (std::vector<double>{8, 4, 12}));
}

TEST_F(TasksTest, AGenerationEndsAtTheContextsEndAndSaysSo) {
  const int context = tiny.tiny.gpt->config().context;
  const auto generate = [&](int prompt, int most) {
    return done(generate_task, {{"prompt", std::string(static_cast<std::size_t>(prompt), 'x')},
                                {"memory", "base"},
                                {"max_tokens", most},
                                {"step_tokens", 8}});
  };
  const json over = generate(context - 20, 1000);
  EXPECT_EQ(over["tokens"].size(), 20u);
  EXPECT_EQ(over["finish"], "context");
  const json exact = generate(context - 20, 20);
  EXPECT_EQ(exact["tokens"], over["tokens"]);
  EXPECT_EQ(exact["finish"], "length");
  const json one = generate(context - 1, 1000);
  EXPECT_EQ(one["tokens"].size(), 1u);
  EXPECT_EQ(one["finish"], "context");
  EXPECT_EQ(code(generate_task, {{"prompt", std::string(static_cast<std::size_t>(context), 'x')},
                                 {"memory", "base"},
                                 {"max_tokens", 1}}),
            ErrorCode::kInvalidArgument);
}

TEST_F(TasksTest, GenerateTellsStartStepsAndDone) {
  const json last =
      done(generate_task,
           {{"prompt", "hello"}, {"memory", "base"}, {"max_tokens", 20}, {"step_tokens", 8}});
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events[0]["type"], "start");
  EXPECT_EQ(events[0]["prompt_tokens"], 5);
  EXPECT_EQ(events[1]["type"], "step");
  EXPECT_EQ(events[1]["memory"], "base");
  EXPECT_EQ(last["type"], "done");
  std::string text;
  std::vector<int> tokens;
  for (std::size_t i = 1; i < events.size(); ++i) {
    text += events[i]["text"].get<std::string>();
    for (const json& id : events[i]["tokens"]) tokens.push_back(id.get<int>());
  }
  EXPECT_EQ(text, last["text"]);
  EXPECT_EQ(tokens, last["tokens"].get<std::vector<int>>());
  EXPECT_LE(tokens.size(), 20u);
  EXPECT_EQ(last["logits_xxh3"].get<std::string>().size(), 32u);
}

TEST_F(TasksTest, GenerateGivesTheSameForTheSameSeedAndAnotherForAnother) {
  const json a = {{"prompt", "hello"},
                  {"memory", "base"},
                  {"temperature", 1.0},
                  {"seed", 5},
                  {"max_tokens", 24}};
  json b = a;
  b["seed"] = 6;
  const json first = done(generate_task, a), again = done(generate_task, a),
             other = done(generate_task, b);
  EXPECT_EQ(first["tokens"], again["tokens"]);
  EXPECT_EQ(first["logits_xxh3"], again["logits_xxh3"]);
  EXPECT_NE(first["tokens"], other["tokens"]);
}

TEST_F(TasksTest, GenerateStopsAtAStopString) {
  const json free =
      done(generate_task, {{"prompt", "hello"}, {"memory", "base"}, {"max_tokens", 30}});
  std::vector<int> ids = free["tokens"].get<std::vector<int>>();
  // The first printable byte that the model writes becomes the stop string.
  std::string stop_text;
  for (const int id : ids) {
    if (id >= 33 && id < 127) {
      stop_text = static_cast<char>(id);
      break;
    }
  }
  if (stop_text.empty()) GTEST_SKIP() << "the tiny model writes no printable byte";
  const json last =
      done(generate_task,
           {{"prompt", "hello"}, {"memory", "base"}, {"max_tokens", 30}, {"stop", {stop_text}}});
  EXPECT_EQ(last["finish"], "stop");
  EXPECT_EQ(last["text"].get<std::string>().find(stop_text), std::string::npos);
}

TEST_F(TasksTest, GenerateWithANamedMemoryAndWithASchedule) {
  tiny.controller.store(tiny.mlp("a"));
  const json with = done(generate_task, {{"prompt", "hello"}, {"memory", "a"}, {"max_tokens", 16}});
  EXPECT_EQ(events[1]["memory"], "default/a@1");
  EXPECT_EQ(events[1]["reason"], "pinned");
  const json base =
      done(generate_task, {{"prompt", "hello"}, {"memory", "base"}, {"max_tokens", 16}});
  EXPECT_NE(with["logits_xxh3"], base["logits_xxh3"]);
  done(generate_task,
       {{"prompt", "hello"},
        {"max_tokens", 12},
        {"step_tokens", 4},
        {"schedule", {{{"step", 1}, {"memory", "a"}}, {{"step", 2}, {"memory", "base"}}}}});
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[1]["memory"], "base");
  EXPECT_EQ(events[2]["memory"], "default/a@1");
  EXPECT_EQ(events[3]["memory"], "base");
}

TEST_F(TasksTest, BadTextsAndMemoriesAreRefusedWithTheirCodes) {
  EXPECT_EQ(code(generate_task, {{"prompt", ""}, {"memory", "base"}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(generate_task, {{"prompt", std::string(200, 'x')}, {"memory", "base"}}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(generate_task, {{"prompt", "x"}, {"memory", "nowhere"}}), ErrorCode::kNotFound);
  EXPECT_EQ(code(generate_task, {{"prompt", "x"}, {"slot", 1}, {"memory", "base"}}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(score_task, {{"text", "x"}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(score_task, {{"ids", {1, 300}}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(score_task, {{"text", std::string(200, 'x')}}), ErrorCode::kInvalidArgument);
  // Not UTF-8: JSON itself cannot carry it, so it is refused as arguments that do not parse.
  const auto raw = generate_task({*tiny.engine, {}, [](std::string) {}}, "{\"prompt\": \"\xff\"}");
  EXPECT_EQ(raw.error().code, ErrorCode::kInvalidArgument);
  SlotSignature wrong = tiny.signature(0, MemoryKind::kMlp);
  wrong.layer = 1;
  tiny.controller.store(stored("wrong", random_mlp(wrong, tiny.rng)));
  EXPECT_EQ(code(generate_task, {{"prompt", "x"}, {"memory", "wrong"}}), ErrorCode::kMismatch);
  EXPECT_EQ(must(tiny.tiny.gpt->attest()), tiny.engine->base_digest) << "the model is as it was";
}

TEST_F(TasksTest, ScoreAgreesWithItselfHoweverTheTextIsGiven) {
  const json by_text = done(score_task, {{"text", "a text to be scored, of some length"}});
  std::vector<int> ids;
  for (const char c : std::string("a text to be scored, of some length")) ids.push_back(c);
  const json by_ids = done(score_task, {{"ids", ids}, {"top_logits", 2}});
  EXPECT_EQ(by_text["nll"], by_ids["nll"]);
  EXPECT_EQ(by_text["tokens"].size(), 34u) << "the first token has no probability";
  EXPECT_EQ(by_ids["tokens"][0]["top"].size(), 2u);
  EXPECT_EQ(by_text["tokens"][0]["text"], " ");
  const bool rank1 = by_ids["tokens"][5]["rank1"];
  EXPECT_EQ(rank1, by_ids["tokens"][5]["top"][0][0] == by_ids["tokens"][5]["id"]);
}

TEST_F(TasksTest, AShortTextHasNoRecall) {
  const auto recall = [&](std::size_t bytes) -> json {  // a byte is a token here
    return done(score_task, {{"text", std::string(bytes, 'x')}})["recall"];
  };
  EXPECT_TRUE(recall(16).is_null());
  EXPECT_TRUE(recall(17).is_number());
}

TEST_F(TasksTest, ScoreWithTheControllersChoiceReportsStepsAndGain) {
  const auto memory = tiny.mlp("a");
  tiny.controller.on_observation = [&](const wire::Observation& o) { return use(o, memory, true); };
  const json scores =
      done(score_task, {{"text", "a text to be scored, of some length"}, {"memory", "auto"}});
  EXPECT_EQ(scores["memory"], "default/a@1");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(events[0].contains("gain"));
}

TEST_F(TasksTest, ScoreFollowsAScheduleAndTellsEachStepsGain) {
  tiny.controller.store(tiny.mlp("a"));
  std::vector<int> ids;
  for (int i = 0; i < 33; ++i) ids.push_back((11 + 29 * i + i * i) % 256);
  const auto nll = [&](const json& scores, std::size_t first) {
    double sum = 0;
    for (std::size_t i = first; i < first + 8; ++i)
      sum -= scores["tokens"][i]["logprob"].get<double>();
    return sum / 8;
  };
  const json base = done(score_task, {{"ids", ids}}),
             a = done(score_task, {{"ids", ids}, {"memory", "a"}});
  EXPECT_FALSE(base.contains("gains"));
  const auto scheduled = [&](const char* kv) {
    return done(
        score_task,
        {{"ids", ids},
         {"kv", kv},
         {"step_tokens", 8},
         {"schedule", {{{"step", 1}, {"memory", "a"}}, {{"step", 2}, {"memory", "base"}}}}});
  };
  const json recompute = scheduled("recompute");
  ASSERT_EQ(recompute["gains"].size(), 4u);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[1]["memory"], "default/a@1");
  EXPECT_EQ(events[1]["reason"], "pinned");
  EXPECT_NEAR(recompute["gains"][1].get<double>(), nll(base, 8) - nll(a, 8), 1e-5);
  for (const std::size_t step : {0u, 2u, 3u}) EXPECT_EQ(recompute["gains"][step], 0) << step;
  const json activated = scheduled("activated");
  EXPECT_EQ(activated["gains"][0], 0);
  EXPECT_NE(activated["gains"][1], recompute["gains"][1]) << "the text before is base's";
  EXPECT_NE(activated["gains"][2], 0) << "and then, for a while, the memory's";
  EXPECT_EQ(activated["memory"], "base");
}

double log_prob_of(const json& steps) {
  double sum = 0;
  for (const json& step : steps) {
    for (const json& value : step["log_probs"]) sum += value.get<double>();
  }
  return sum;
}

json tokens_of(const json& steps) {
  json out = json::array();
  for (const json& step : steps) {
    out.insert(out.end(), step["tokens"].begin(), step["tokens"].end());
  }
  return out;
}

// The stateful memory has read the prompt in the first pass only; the others go on from its state.
TEST_F(TasksTest, AWhatIfReadsItsPromptOnceAndFollowsEachScheduleFromThere) {
  tiny.controller.store(delta());
  tiny.controller.store(tiny.mlp("a"));
  std::vector<int> ids;
  for (int i = 0; i < 40; ++i) ids.push_back((11 + 29 * i + i * i) % 256);
  const auto prefilled = [&] {
    metrics::Page page;
    tiny.probe.collect(page);
    const std::string text = page.text(), name = "\nmemslot_generator_prefill_tokens_total ";
    return std::stoul(text.substr(text.find(name) + name.size()));
  };
  for (const char* kv : {"activated", "recompute"}) {
    SCOPED_TRACE(kv);
    // The steps of a generation, as its trace would have them.
    const auto generate = [&](const json& schedule) {
      must(run(generate_task, {{"ids", ids},
                               {"kv", kv},
                               {"memory", "d"},
                               {"max_tokens", 16},
                               {"step_tokens", 4},
                               {"temperature", 1},
                               {"schedule", schedule}}));
      json steps = json::array();
      for (const json& event : events) {
        if (event["type"] != "step") continue;
        steps.push_back({{"active", {event["memory"]}},
                         {"tokens", event["tokens"]},
                         {"log_probs", event["log_probs"]},
                         {"logits_xxh3", "0000000000000000"}});
      }
      return steps;
    };
    const json recorded = generate(json::array());
    const json other = generate({{{"step", 2}, {"memory", "a"}}, {{"step", 3}, {"memory", "d"}}});
    ASSERT_NE(tokens_of(other), tokens_of(recorded));
    const auto what_if = [&](const char* memory) {
      const std::size_t before = prefilled();
      json out = done(replay_task, {{"ids", ids},
                                    {"kv", kv},
                                    {"temperature", 1},
                                    {"opening", {"default/d@1"}},
                                    {"steps", recorded},
                                    {"what_if", {{"step", 2}, {"memory", memory}}}});
      EXPECT_EQ(prefilled() - before, ids.size() - 1);
      return out;
    };
    const json changed = what_if("default/a@1");
    EXPECT_EQ(changed["what_if"]["tokens"], tokens_of(other));
    EXPECT_NEAR(changed["what_if"]["log_prob"].get<double>(), log_prob_of(other), 1e-3);
    // Both texts read with what was recorded.
    const json same = what_if("default/d@1");
    EXPECT_EQ(same["what_if"]["tokens"], tokens_of(recorded));
    EXPECT_NEAR(same["original"]["log_prob_with_change"].get<double>(), log_prob_of(recorded),
                1e-3);
    EXPECT_NEAR(same["what_if"]["log_prob_as_recorded"].get<double>(), log_prob_of(recorded), 1e-3);
  }
}

TEST_F(TasksTest, TokenizeAndAttest) {
  const json tokens = done(tokenize_task, {{"text", "ab"}});
  EXPECT_EQ(tokens["ids"], json({97, 98}));
  EXPECT_EQ(tokens["pieces"], json({"a", "b"}));
  EXPECT_EQ(done(tokenize_task, {{"ids", {97, 98}}})["text"], "ab");
  EXPECT_EQ(code(tokenize_task, {{"ids", {999}}}), ErrorCode::kInvalidArgument);
  const json attest = done(attest_task, json::object());
  EXPECT_EQ(attest["equal"], true);
  EXPECT_EQ(attest["digest"], attest["at_load"]);
  EXPECT_EQ(code(attest_task, {{"what", 1}}), ErrorCode::kInvalidArgument);
}

TEST_F(TasksTest, BenchMeasuresWhatItSaysAndRefusesWhatDoesNotFitTheContext) {
  LearnWorker worker(*tiny.engine, nullptr, *tiny.outer);
  const auto bench = [&](const json& arguments) -> Result<std::string> {
    return bench_task({*tiny.engine, stop.get_token(), {}}, arguments.dump(), worker, "");
  };
  const json decode = json::parse(must(bench({{"what", "decode"}, {"tokens", 8}, {"repeats", 1}})));
  EXPECT_EQ(decode["tokens"], 8);
  EXPECT_GT(decode["tokens_per_second"].get<double>(), 0);
  const int context = tiny.tiny.gpt->config().context;
  for (const auto& [what, over] :
       {std::pair{"decode", context - 15}, {"prefill", context}, {"learn_step", context + 1}}) {
    const auto refused = bench({{"what", what}, {"tokens", over}, {"repeats", 1}});
    ASSERT_FALSE(refused) << what;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument) << refused.error().message;
  }
  const json trip =
      json::parse(must(bench({{"what", "round_trip"}, {"memory", "auto"}, {"repeats", 5}})));
  EXPECT_EQ(trip["repeats"], 5) << "the warm-up comes beside them";
  EXPECT_GT(trip["median_us"].get<double>(), 0);
}

TEST_F(TasksTest, ADeltaMemoryIsWrittenBackAndTheNewVersionReported) {
  const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
  const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                     MemoryKind::kDelta, sha256(outer->bytes()));
  const DeltaShape shape = tiny.outer->shape();
  tiny.controller.store(
      stored("d", must(make_delta_state(signature, shape, DeltaStateValues::zero(shape)))));
  std::vector<wire::WriteBack> backs;
  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes& payload) {
    backs.push_back(back);
    EXPECT_EQ(back.version.sha256, sha256(*payload));
    MemoryVersion version = back.version;
    version.ref.version = 1 + backs.size();
    return FakeController::Answer{wire::WriteBackReply{false, version}, {}};
  };
  const json last =
      done(generate_task,
           {{"prompt", "hello"}, {"memory", "d"}, {"max_tokens", 8}, {"write_back", true}});
  ASSERT_EQ(backs.size(), 1u);
  EXPECT_EQ(backs[0].expected, "token-d-1");
  EXPECT_EQ(backs[0].version.parent, "token-d-1");
  EXPECT_EQ(last["write_back"], "default/d@2");
  EXPECT_EQ(last["write_back_conflict"], false);

  tiny.controller.on_write_back = [&](const wire::WriteBack& back, const SharedBytes&) {
    return FakeController::Answer{wire::WriteBackReply{true, back.version}, {}};
  };
  EXPECT_EQ(done(generate_task, {{"prompt", "hello"},
                                 {"memory", "d"},
                                 {"max_tokens", 8},
                                 {"write_back", true}})["write_back_conflict"],
            true);
}

TEST_F(TasksTest, AWriteBackIsSentAgainWithItsTokenUntilItIsAnswered) {
  const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
  const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                     MemoryKind::kDelta, sha256(outer->bytes()));
  const DeltaShape shape = tiny.outer->shape();
  tiny.controller.store(
      stored("d", must(make_delta_state(signature, shape, DeltaStateValues::zero(shape)))));
  std::vector<std::string> tokens;
  tiny.controller.on_write_back = [&](const wire::WriteBack& back,
                                      const SharedBytes&) -> std::optional<FakeController::Answer> {
    tokens.push_back(back.version.token);
    if (tokens.size() < 3) return std::nullopt;
    return FakeController::Answer{wire::WriteBackReply{false, back.version}, {}};
  };
  const json last =
      done(generate_task,
           {{"prompt", "hello"}, {"memory", "d"}, {"max_tokens", 8}, {"write_back", true}});
  EXPECT_TRUE(last.contains("write_back"));
  ASSERT_GE(tokens.size(), 3u);
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[1], tokens[2]);
}

TEST_F(TasksTest, WhatTheControllersDiskFailedIsSentAgain) {
  std::vector<ErrorCode> failures = {ErrorCode::kNoSpace, ErrorCode::kIo};
  tiny.controller.on_learn =
      [&](const wire::LearnResult& r) -> std::optional<FakeController::Answer> {
    if (failures.empty())
      return FakeController::Answer{wire::LearnAck{r.job, r.lease, true, ""}, {}};
    const ErrorCode code = failures.back();
    failures.pop_back();
    return FakeController::Answer{wire::ErrorReply{code, "the disk"}, {}};
  };
  std::promise<bool> answered;
  const auto memory = tiny.mlp("a");
  must(tiny.outbox->add(
      {wire::LearnResult{"j1", 1, memory.version},
       {memory.payload, share_bytes({})},
       std::nullopt,
       [&](Result<wire::Message> reply) { answered.set_value(reply.has_value()); }}));
  EXPECT_TRUE(answered.get_future().get());
  EXPECT_EQ(tiny.outbox->counters().retries, 2u);
}

TEST_F(TasksTest, ADiskThatGoesOnFailingIsReportedAndDoesNotHoldUpWhatWaitsBehind) {
  Outbox outbox(*tiny.link, tiny.clock, /*max_bytes=*/1 << 20, /*max_disk_failures=*/2);
  tiny.controller.on_learn = [](const wire::LearnResult& r) {
    if (r.job == "j2") return FakeController::Answer{wire::LearnAck{r.job, r.lease, true, ""}, {}};
    return FakeController::Answer{wire::ErrorReply{ErrorCode::kNoSpace, "the disk is full"}, {}};
  };
  std::promise<ErrorCode> first;
  std::promise<bool> second;
  const auto memory = tiny.mlp("a");
  const std::vector<SharedBytes> parts = {memory.payload, share_bytes({})};
  must(outbox.add({wire::LearnResult{"j1", 1, memory.version}, parts, std::nullopt,
                   [&](Result<wire::Message> reply) {
                     first.set_value(reply ? ErrorCode::kInternal : reply.error().code);
                   }}));
  must(outbox.add({wire::LearnResult{"j2", 1, memory.version}, parts, std::nullopt,
                   [&](Result<wire::Message> reply) { second.set_value(reply.has_value()); }}));
  outbox.start();
  EXPECT_EQ(first.get_future().get(), ErrorCode::kNoSpace);
  EXPECT_TRUE(second.get_future().get());
  EXPECT_EQ(outbox.counters().retries, 2u);
}

TEST_F(TasksTest, AResultOverTheEnvelopesLimitEndsItsTaskWithAnError) {
  TaskService::Handlers handlers;
  handlers["long"] = [](const TaskContext&, const std::string&) -> Result<std::string> {
    return std::string(wire::kMaxEnvelopeBytes, 'x');
  };
  TaskService service(*tiny.engine, handlers, 2);
  service.assign(11, {1, "long", ""});
  ASSERT_TRUE(tiny.controller.wait_for<wire::TaskEvent>(1));
  const auto last = tiny.controller.heard_of<wire::TaskEvent>()[0];
  EXPECT_EQ(last.task, 1u);
  EXPECT_TRUE(last.final);
  ASSERT_TRUE(last.error);
  EXPECT_EQ(last.error->code, ErrorCode::kInvalidArgument);
  EXPECT_NE(last.error->message.find("result: "), std::string::npos) << last.error->message;
}

TEST_F(TasksTest, TheServiceRunsCancelsAndRefuses) {
  TaskService::Handlers handlers;
  handlers["slow"] = [](const TaskContext& context, const std::string&) -> Result<std::string> {
    while (!context.stop.stop_requested())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Error{ErrorCode::kCancelled, "cancelled"};
  };
  handlers["quick"] = [](const TaskContext& context, const std::string& a) -> Result<std::string> {
    context.emit(R"({"type":"news"})");
    return a;
  };
  TaskService service(*tiny.engine, handlers, 2);
  service.assign(11, {1, "quick", R"({"type":"done"})"});
  ASSERT_TRUE(tiny.controller.wait_for<wire::TaskEvent>(2));
  const auto quick = tiny.controller.heard_of<wire::TaskEvent>();
  EXPECT_FALSE(quick[0].final);
  EXPECT_TRUE(quick[1].final);
  EXPECT_EQ(quick[1].event, R"({"type":"done"})");

  service.assign(12, {2, "slow", ""});
  service.assign(12, {2, "slow", ""});  // a retry
  service.assign(13, {3, "slow", ""});
  EXPECT_EQ(service.counters().running, 2u);
  service.assign(14, {4, "slow", ""});
  ASSERT_TRUE(tiny.controller.wait_for<wire::TaskEvent>(3));
  EXPECT_EQ(tiny.controller.heard_of<wire::TaskEvent>()[2].error->code, ErrorCode::kOverloaded);
  service.cancel(2);
  ASSERT_TRUE(tiny.controller.wait_for<wire::TaskEvent>(4));
  EXPECT_EQ(tiny.controller.heard_of<wire::TaskEvent>()[3].error->code, ErrorCode::kCancelled);
  service.assign(15, {5, "unheard of", ""});
  ASSERT_TRUE(tiny.controller.wait_for<wire::TaskEvent>(5));
  EXPECT_EQ(tiny.controller.heard_of<wire::TaskEvent>()[4].error->code,
            ErrorCode::kInvalidArgument);
  service.stop();
  EXPECT_EQ(service.counters().running, 0u);
}

}  // namespace
}  // namespace memslot
