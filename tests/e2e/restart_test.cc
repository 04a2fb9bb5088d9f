// kill -9 of the real controller in the middle of a session, and another one in its place: the
// session goes on, and the memories that are chosen are those of a session that nothing disturbed.
//
// The generator runs inside this process, so that every step of a session that outlives its
// controller can be seen.
#include <gtest/gtest.h>

#include "generator/runtime/generator_service.h"
#include "generator/runtime/session_run.h"
#include "tests/e2e/pair.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

const std::pair<const char*, const char*> kSources[] = {
    {"ferry",
     "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
     "captain keeps a brass bell from a drowned church, and rings it once for every passenger."},
    {"baker",
     "Perrin bakes eleven loaves of rye each morning and sells ten. THE LAST ONE HANGS in the "
     "window until 11:45, for he holds that bread nobody counted turns sour (before noon)."},
    {"clock",
     "0412 0927 1355 2210: the four numbers painted inside the lid. 88 teeth, 17 jewels, 3 "
     "hands; wound 6 times at 7.30, it loses 4 minutes in 100 hours and gains 9 in 1000."},
};

enum class Kill { kNever, kBetweenSteps, kDuringAnObservation };

struct Chosen {
  std::vector<std::string> memories;  // one per step
  std::vector<std::int32_t> tokens;
};

struct RestartTest : testing::TestWithParam<bool> {
  Pair pair;
  SystemClock clock;
  std::unique_ptr<GeneratorService> generator;
  std::unique_ptr<Client> client;

  void SetUp() override {
    pair.controller.start();
    GeneratorOptions options;
    options.model = pair.model;
    options.weights = "f32";
    options.threads = 1;
    generator = must(GeneratorService::open(std::move(options), clock));
    ClientOptions link;
    link.endpoint = pair.endpoint;
    generator->start(must(connect_channel(link)));
    must(engine().link.wait_connected(clock.now() + 30s));
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
    for (const auto& [source, text] : kSources) {
      must(client->task(
          "learn", {{"text", text},
                    {"source", source},
                    {"id", source},
                    {"config", {{"kind", "lora"}, {"rank", 4}, {"max_steps", 8}, {"lr", 0.02}}}}));
    }
    restart();  // from here on every controller has made its index of the same memories at once
  }
  void TearDown() override {
    if (HasFailure()) std::fprintf(stderr, "--- controller\n%s", pair.controller.log().c_str());
    client.reset();
    if (generator) generator->stop();
  }

  Engine& engine() { return generator->engine(); }
  void restart() {
    const std::uint64_t before = engine().link.controller();
    pair.controller.kill(SIGKILL);
    pair.controller.start();
    const TimePoint end = clock.now() + 30s;
    while (engine().link.controller() == before && clock.now() < end) {
      std::this_thread::sleep_for(5ms);
    }
    ASSERT_NE(engine().link.controller(), before) << "the generator did not greet the new one";
  }
  // A session over the text, or on from it; disturbed at step `at`.
  Chosen run(const std::string& text, bool reading, Kill kill, std::size_t at = 0) {
    RunOptions options;
    options.session.memory.kind = MemoryChoice::Kind::kAuto;
    options.session.policy = "nearest";
    options.deadline = 60s;
    options.sampled = !reading;
    auto session =
        must(SessionRun::open(engine(), must(engine().tokenizer->encode(text)), std::move(options),
                              [reading](Session& s) {
                                return reading ? s.read(16)
                                               : s.write(16, [](std::int32_t) { return true; });
                              }));
    if (!reading) must(session->prefill({}));
    Chosen out;
    StepEnd end = StepEnd::kMore;
    for (std::size_t step = 0; step < 24 && end == StepEnd::kMore; ++step) {
      std::thread killer;
      if (kill == Kill::kBetweenSteps && step == at) restart();
      if (kill == Kill::kDuringAnObservation && step == at) {
        pair.controller.kill(SIGKILL);
        killer = std::thread([this] { pair.controller.start(); });
      }
      const auto report = session->steps().run_one();
      if (killer.joinable()) killer.join();
      end = must(report).output.end;
      out.memories.push_back(report.value().active[0].ref.id);
    }
    EXPECT_EQ(session->steps().missed(), 0u);
    out.tokens = session->session().tokens();
    static_cast<void>(session->close());
    return out;
  }
};

TEST_P(RestartTest, ChoosesWhatAnUndisturbedSessionChooses) {
  const bool reading = GetParam();
  std::set<std::string> chosen;
  for (const auto& [source, text] : kSources) {
    const Chosen want = run(text, reading, Kill::kNever);
    ASSERT_GT(want.memories.size(), 8u);
    chosen.insert(want.memories.begin(), want.memories.end());
    for (const auto& [kill, at] :
         {std::pair{Kill::kBetweenSteps, 4}, {Kill::kDuringAnObservation, 7}}) {
      SCOPED_TRACE(testing::Message() << source << ", killed at step " << at);
      const Chosen got = run(text, reading, kill, static_cast<std::size_t>(at));
      EXPECT_EQ(got.memories, want.memories);
      EXPECT_EQ(got.tokens, want.tokens);
    }
  }
  EXPECT_GT(chosen.size(), 2u) << "the sessions are to choose: " << testing::PrintToString(chosen);
}

INSTANTIATE_TEST_SUITE_P(Sessions, RestartTest, testing::Bool(), [](const auto& param_info) {
  return param_info.param ? "Reading" : "Writing";
});

}  // namespace
}  // namespace memslot
