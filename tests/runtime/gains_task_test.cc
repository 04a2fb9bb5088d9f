// The task `gains` of docs/formats/tasks.md on the tiny model: against `score`, and what goes
// wrong.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "generator/runtime/tasks.h"
#include "shared/base/base64.h"
#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;
using nlohmann::json;

std::vector<std::int32_t> text(int count) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((11 + 29 * i + i * i) % 256);
  return out;
}

// All events of one task put together.
struct Outcome {
  json last;
  std::vector<std::string> memories;
  std::vector<std::vector<float>> surprise, entropy, activation;  // a candidate's, one a step
  std::vector<float> hidden;
};

struct GainsTaskTest : testing::Test {
  TinyEngine tiny{{1, 2}};
  std::vector<json> events;
  std::stop_source stop;
  std::function<void()> on_event;

  void SetUp() override { tiny.connect(); }
  TaskContext context() {
    const auto keep = [this](std::string e) {
      events.push_back(json::parse(e));
      if (on_event) on_event();
    };
    return {*tiny.engine, stop.get_token(), keep, keep};
  }
  Result<std::string> run(const json& arguments) {
    events.clear();
    return gains_task(context(), arguments.dump(), tiny.gate);
  }
  Outcome outcome(const json& arguments) {
    Outcome out;
    out.last = json::parse(must(run(arguments)));
    const std::size_t steps = out.last["steps"].size();
    for (const json& e : events) {
      if (e["type"] == "hidden") {
        const auto values = must(
            floats_from_base64(e["values"].get<std::string>(), e["rows"].get<std::size_t>() * 64));
        EXPECT_EQ(e["first"].get<std::size_t>() * 64, out.hidden.size());
        out.hidden.insert(out.hidden.end(), values.begin(), values.end());
        continue;
      }
      EXPECT_EQ(e["type"], "rows");
      EXPECT_EQ(e["first"], out.memories.size());
      const std::size_t count = e["memories"].size();
      const auto add = [&](const char* name, std::vector<std::vector<float>>& to) {
        const auto values = must(floats_from_base64(e[name].get<std::string>(), count * steps));
        for (std::size_t i = 0; i < count; ++i) {
          const auto at = values.begin() + static_cast<std::ptrdiff_t>(i * steps);
          to.emplace_back(at, at + static_cast<std::ptrdiff_t>(steps));
        }
      };
      add("surprise", out.surprise);
      add("entropy", out.entropy);
      add("activation", out.activation);
      for (const json& name : e["memories"]) out.memories.push_back(name);
    }
    EXPECT_EQ(out.last["candidates"], out.memories.size());
    EXPECT_EQ(out.hidden.size(), steps * 64);
    return out;
  }
  void expect_error(const json& arguments, ErrorCode code, const std::string& what) {
    const auto result = run(arguments);
    ASSERT_FALSE(result.has_value()) << arguments;
    EXPECT_EQ(result.error().code, code) << result.error().message;
    EXPECT_NE(result.error().message.find(what), std::string::npos) << result.error().message;
  }
};

TEST_F(GainsTaskTest, EveryCandidateHasTheLossOfAScoredTextWithItPinned) {
  tiny.controller.store(tiny.lora("a", 1));
  tiny.controller.store(tiny.mlp("b", 1));
  const auto ids = text(50);
  const Outcome out = outcome(
      {{"ids", ids}, {"slot", 1}, {"memories", {"a", "default/b@1"}}, {"steps", {16, 30, 3}}});
  EXPECT_EQ(out.memories, (std::vector<std::string>{"base", "default/a@1", "default/b@1"}));
  const std::string names[] = {"base", "a", "b"};
  for (std::size_t m = 0; m < 3; ++m) {
    const json scores = json::parse(
        must(score_task(context(), json{{"ids", ids}, {"slot", 1}, {"memory", names[m]}}.dump())));
    std::size_t token = 0;
    for (std::size_t t = 0; t < 3; ++t) {
      const std::size_t count = out.last["steps"][t];
      double sum = 0;
      for (std::size_t i = 0; i < count; ++i)
        sum -= scores["tokens"][token++]["logprob"].get<double>();
      EXPECT_NEAR(out.surprise[m][t], sum / static_cast<double>(count), 2e-6) << m << " " << t;
    }
  }
  EXPECT_EQ(out.last["layer"], 2);
  EXPECT_EQ(out.last["model"], tiny.digest.hex());
}

TEST_F(GainsTaskTest, AStatefulMemoryReadsTheTextFromItsStoredState) {
  const auto outer = must(tiny.outer->get(0, MemoryKind::kDelta));
  const SlotSignature signature = expected_signature(*tiny.tiny.gpt, tiny.digest, 0,
                                                     MemoryKind::kDelta, sha256(outer->bytes()));
  const DeltaShape shape = tiny.outer->shape();
  DeltaStateValues values = DeltaStateValues::zero(shape);
  for (float& v : values.s) v = 0.3f;
  tiny.controller.store(stored("d", must(make_delta_state(signature, shape, values))));
  const auto ids = text(40);
  const Outcome out = outcome({{"ids", ids}, {"memories", {"d", "d"}}});
  EXPECT_EQ(out.surprise[1], out.surprise[2]);
  const json scores =
      json::parse(must(score_task(context(), json{{"ids", ids}, {"memory", "d"}}.dump())));
  double nll = 0;
  for (std::size_t t = 0; t < 3; ++t) {
    nll += static_cast<double>(out.surprise[1][t]) * out.last["steps"][t].get<double>();
  }
  EXPECT_NEAR(nll / 39, scores["nll"].get<double>(), 2e-6);
}

TEST_F(GainsTaskTest, ManyCandidatesComeInSeveralEventsAndWithoutAnyOnlyBaseIsScored) {
  tiny.controller.store(tiny.lora("a"));
  tiny.controller.store(tiny.lora("b"));
  std::vector<std::string> names;
  for (int i = 0; i < 45; ++i) names.push_back(i % 2 == 0 ? "a" : "b");
  const Outcome out = outcome({{"ids", text(101)}, {"memories", names}, {"step_tokens", 30}});
  EXPECT_EQ(out.last["steps"], (std::vector<int>{30, 30, 30, 10}));
  EXPECT_GT(events.size(), 3u);
  for (std::size_t i = 3; i < 46; ++i) EXPECT_EQ(out.surprise[i], out.surprise[i - 2]);
  const Outcome base = outcome({{"ids", text(101)}, {"step_tokens", 30}});
  EXPECT_EQ(base.memories, std::vector<std::string>{"base"});
  EXPECT_EQ(base.surprise[0], out.surprise[0]);
  EXPECT_EQ(base.hidden, out.hidden);
}

TEST_F(GainsTaskTest, TextAndIdsAreTheSame) {
  const Outcome by_text = outcome({{"text", "hello, memory"}});
  std::vector<std::int32_t> ids;
  for (const char c : std::string("hello, memory")) ids.push_back(c);
  EXPECT_EQ(outcome({{"ids", ids}}).surprise, by_text.surprise);
}

TEST_F(GainsTaskTest, ArgumentsThatDoNotFitAreRefused) {
  const auto ids = text(20);
  const auto invalid = ErrorCode::kInvalidArgument;
  expect_error({{"ids", ids}, {"text", "x"}}, invalid, "either text or ids");
  expect_error(json::object(), invalid, "either text or ids");
  expect_error({{"ids", ids}, {"steps", json::array()}}, invalid, "at least one step");
  expect_error({{"ids", ids}, {"steps", {19}}, {"step_tokens", 4}}, invalid, "either steps");
  expect_error({{"ids", ids}, {"steps", {5}}}, invalid, "tokens of all steps");
  expect_error({{"ids", ids}, {"step_tokens", 0}}, invalid, "step_tokens");
  expect_error({{"ids", ids}, {"memories", "a"}}, invalid, "memories");
  expect_error({{"ids", ids}, {"memories", {"base"}}}, invalid, "base is scored beside them");
  expect_error({{"ids", ids}, {"memories", {"auto"}}}, invalid, "auto");
  expect_error({{"ids", ids}, {"slot", 2}}, invalid, "argument slot");
  expect_error({{"ids", ids}, {"memory", "a"}}, invalid, "argument name");
  expect_error({{"ids", {3}}}, invalid, "at least 2 tokens");
  expect_error({{"ids", text(129)}}, invalid, "the context");
  expect_error({{"ids", {3, 256, 4}}}, invalid, "token id");
  expect_error({{"text", ""}}, invalid, "text");
}

TEST_F(GainsTaskTest, AMemoryThatIsNotThereOrOfAnotherSlotIsAnErrorThatNamesIt) {
  expect_error({{"ids", text(9)}, {"memories", {"absent"}}}, ErrorCode::kNotFound,
               "default/absent");
  tiny.controller.store(tiny.lora("other", 1));
  expect_error({{"ids", text(9)}, {"memories", {"other"}}, {"slot", 0}}, ErrorCode::kMismatch,
               "other");
  tiny.controller.stop();  // base alone needs no controller
  EXPECT_TRUE(run({{"ids", text(9)}}).has_value());
}

TEST_F(GainsTaskTest, AMemoryThatIsDeletedMeanwhileEndsTheTaskAfterTheRowsBeforeIt) {
  const auto memory = tiny.lora("a");
  int fetched = 0;
  tiny.controller.on_fetch = [&](const wire::FetchMemory& f) {
    if (++fetched > 20)
      return FakeController::Answer{wire::ErrorReply{ErrorCode::kNotFound, "no such memory"}, {}};
    return FakeController::Answer{wire::MemoryReply{f.session, memory.version}, {memory.payload}};
  };
  const std::vector<std::string> names(40, "a");
  expect_error({{"ids", text(128)}, {"memories", names}}, ErrorCode::kNotFound, "default/a");
  EXPECT_EQ(events.back()["type"], "rows");
}

TEST_F(GainsTaskTest, ACancelledTaskEndsBetweenBatches) {
  tiny.controller.store(tiny.lora("a"));
  on_event = [this] { stop.request_stop(); };
  const std::vector<std::string> names(60, "a");
  expect_error({{"ids", text(128)}, {"memories", names}}, ErrorCode::kCancelled, "cancelled");
  EXPECT_EQ(events.size(), 1u);  // the hidden summaries
}

TEST_F(GainsTaskTest, DecodingGoesOnBesideIt) {
  tiny.controller.store(tiny.lora("a"));
  const std::vector<std::string> names(400, "a");
  std::atomic<bool> ended{false};
  TinyEngine& engine = tiny;
  std::thread scoring([&] {
    const TaskContext quiet{*engine.engine, stop.get_token(), [](std::string) {},
                            [](std::string) {}};
    static_cast<void>(
        gains_task(quiet, json{{"ids", text(128)}, {"memories", names}}.dump(), engine.gate));
    ended = true;
  });
  int beside = 0;
  while (!ended && beside < 3) {
    must(score_task(context(), json{{"ids", text(20)}}.dump()));
    if (!ended) ++beside;
  }
  stop.request_stop();
  scoring.join();
  EXPECT_EQ(beside, 3);
}

}  // namespace
}  // namespace memslot
