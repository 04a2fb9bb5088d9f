// run_one(t) against a scripted controller: deadlines, late and failing directives, memories that
// are gone, sync and async, the user's pins, a controller that restarts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "generator/runtime/session_run.h"
#include "tests/runtime/tiny_engine.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using wire::ActiveReason;

std::vector<std::int32_t> prompt(int count = 24) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back((11 + 29 * i) % 256);
  return out;
}

struct StepLoopTest : testing::Test {
  TinyEngine tiny{{2}};
  FakeController& controller = tiny.controller;

  RunOptions options(MemoryChoice::Kind kind = MemoryChoice::Kind::kAuto) {
    RunOptions out;
    out.session.memory.kind = kind;
    out.sampled = true;
    out.deadline = 2s;
    out.settings.digest_logits = true;
    return out;
  }
  std::unique_ptr<SessionRun> open(RunOptions o, int step = 4) {
    if (!tiny.link) tiny.connect();
    auto run = must(SessionRun::open(*tiny.engine, prompt(), std::move(o), [step](Session& s) {
      return s.write(step, [](std::int32_t) { return true; });
    }));
    must(run->prefill({}));
    return run;
  }
  std::vector<std::int32_t> alone_with(const FakeController::Stored* memory, int tokens) {
    auto s = tiny.session();
    if (memory != nullptr) {
      const SlotChange change{0, tiny.load(*memory)};
      must(s->activate({&change, 1}));
    }
    must(s->add_tokens(prompt()));
    while (!must(s->prefill(512))) {
    }
    must(s->write(tokens, [](std::int32_t) { return true; }));
    return s->tokens();
  }
};

TEST_F(StepLoopTest, FollowsADirectiveInTheStepThatItIsFor) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, memory, o.step == 0);
  };
  auto run = open(options());
  const StepReport first = must(run->steps().run_one());
  EXPECT_EQ(first.active[0].reason, ActiveReason::kDirective);
  EXPECT_EQ(first.active[0].ref, memory.version.ref);
  EXPECT_TRUE(first.swap.changed);
  EXPECT_EQ(first.candidates, 2u);
  const StepReport second = must(run->steps().run_one());
  EXPECT_FALSE(second.swap.changed);
  EXPECT_EQ(second.active[0].reason, ActiveReason::kDirective);

  const auto seen = controller.heard_of<wire::Observation>();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].active[0].reason, ActiveReason::kOpening);
  EXPECT_EQ(seen[0].tokens, 24u);
  EXPECT_FALSE(seen[0].sampled);
  EXPECT_TRUE(seen[0].whole_window);
  ASSERT_EQ(seen[0].chunks.size(), 2u);
  EXPECT_EQ(seen[0].chunks[0].tokens, 6u);  // 24 tokens, without the first and the last
  EXPECT_EQ(seen[0].chunks[1].tokens, 16u);
  EXPECT_EQ(seen[0].steps_since_swap, 1u);
  EXPECT_TRUE(seen[0].residents.added.empty());
  EXPECT_EQ(seen[1].active[0].ref, memory.version.ref);
  EXPECT_TRUE(seen[1].sampled);
  EXPECT_EQ(seen[1].tokens, 4u);
  EXPECT_FALSE(seen[1].whole_window);
  ASSERT_EQ(seen[1].chunks.size(), 1u);
  EXPECT_EQ(seen[1].chunks[0].tokens, 4u);
  EXPECT_EQ(seen[1].steps_since_swap, 1u) << "the step that swapped";
  ASSERT_EQ(seen[1].residents.added.size(), 1u);
  EXPECT_EQ(seen[1].residents.added[0].ref, memory.version.ref);
  EXPECT_EQ(seen[1].residents.base_epoch, seen[0].residents.epoch);
}

TEST_F(StepLoopTest, AMissedDeadlineKeepsAndSaysSo) {
  const auto memory = tiny.mlp("a");
  controller.on_observation =
      [&](const wire::Observation& o) -> std::optional<FakeController::Answer> {
    if (o.step == 1) return std::nullopt;
    return use(o, memory, true);
  };
  auto o = options();
  o.deadline = 60ms;
  auto run = open(std::move(o));
  must(run->steps().run_one());
  const StepReport second = must(run->steps().run_one());
  EXPECT_EQ(second.active[0].reason, ActiveReason::kMissedDeadline);
  EXPECT_EQ(second.active[0].ref, memory.version.ref) << "kept";
  EXPECT_EQ(second.output.tokens.size(), 4u);
  EXPECT_EQ(run->steps().missed(), 1u);
  ASSERT_EQ(second.faults.size(), 1u);
  EXPECT_NE(second.faults[0].find("no directive"), std::string::npos) << second.faults[0];
  const StepReport third = must(run->steps().run_one());
  EXPECT_TRUE(third.faults.empty());
  EXPECT_EQ(third.active[0].reason, ActiveReason::kDirective);
  const auto seen = controller.heard_of<wire::Observation>();
  EXPECT_EQ(seen.back().active[0].reason, ActiveReason::kMissedDeadline);
  EXPECT_EQ(seen.back().residents.base_epoch, 0u)
      << "what the controller knows is unsure: all of it";
}

TEST_F(StepLoopTest, ADirectiveForAnotherStepIsDropped) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    auto answer = use(o, memory, true);
    std::get<wire::Directive>(answer.body).step = o.step + 5;
    return answer;
  };
  auto run = open(options());
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kMissedDeadline);
  EXPECT_TRUE(report.active[0].ref.id.empty());
  EXPECT_EQ(run->selector()->late(), 1u);
}

TEST_F(StepLoopTest, AReplyAfterTheDeadlineIsDroppedAndTheStepIsNotDisturbed) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    if (o.step == 0) std::this_thread::sleep_for(150ms);
    return o.step == 0 ? use(o, memory, true) : to_base(o);
  };
  auto o = options();
  o.deadline = 50ms;
  auto run = open(std::move(o));
  EXPECT_EQ(must(run->steps().run_one()).active[0].reason, ActiveReason::kMissedDeadline);
  std::this_thread::sleep_for(200ms);
  EXPECT_GE(tiny.link->stats().late, 1u);
  const StepReport next = must(run->steps().run_one());
  EXPECT_EQ(next.active[0].reason, ActiveReason::kDirective);
  EXPECT_TRUE(next.active[0].ref.id.empty());
}

TEST_F(StepLoopTest, AMemoryThatDoesNotLoadLeavesTheOldOneActive) {
  const auto good = tiny.mlp("good");
  auto bad = tiny.mlp("bad");
  auto bytes = *bad.payload;
  bytes[bytes.size() / 2] ^= std::byte{1};
  bad.payload = share_bytes(std::move(bytes));
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, o.step == 0 ? good : bad, true);
  };
  auto run = open(options());
  must(run->steps().run_one());
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kLoadFailed);
  EXPECT_EQ(report.active[0].ref, good.version.ref);
  EXPECT_FALSE(report.swap.changed);
  ASSERT_EQ(report.faults.size(), 1u);
  EXPECT_NE(report.faults[0].find("the old memory stays"), std::string::npos) << report.faults[0];
  EXPECT_EQ(tiny.loader->counters().failures, 1u);
  EXPECT_EQ(tiny.residents.size(), 1u);
}

TEST_F(StepLoopTest, AMemoryOfAnotherModelDoesNotLoad) {
  SlotSignature other = tiny.signature(0, MemoryKind::kMlp);
  other.model.bytes[0] ^= 1;
  const auto memory = stored("other", random_mlp(other, tiny.rng));
  controller.on_observation = [&](const wire::Observation& o) { return use(o, memory, true); };
  auto run = open(options());
  EXPECT_EQ(must(run->steps().run_one()).active[0].reason, ActiveReason::kLoadFailed);
}

TEST_F(StepLoopTest, AResidentThatIsGoneIsFetched) {
  const auto memory = tiny.mlp("a");
  controller.store(memory);
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, memory, /*payload=*/false);
  };
  auto run = open(options());
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kDirective);
  EXPECT_EQ(report.active[0].ref, memory.version.ref);
  EXPECT_EQ(controller.heard_of<wire::FetchMemory>().size(), 1u);
}

TEST_F(StepLoopTest, AResidentThatCannotBeFetchedEitherLeavesTheOldOne) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, memory, /*payload=*/false);
  };
  auto run = open(options());
  EXPECT_EQ(must(run->steps().run_one()).active[0].reason, ActiveReason::kLoadFailed);
}

TEST_F(StepLoopTest, AFetchThatIsNotAnsweredHoldsAStepUpNoLongerThanItsDeadline) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, memory, /*payload=*/false);
  };
  controller.on_fetch = [](const wire::FetchMemory&) { return std::nullopt; };
  auto o = options();
  o.deadline = 300ms;
  auto run = open(std::move(o));
  const auto start = std::chrono::steady_clock::now();
  const StepReport report = must(run->steps().run_one());
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
  EXPECT_EQ(report.active[0].reason, ActiveReason::kLoadFailed);
  EXPECT_EQ(report.output.tokens.size(), 4u);
}

TEST_F(StepLoopTest, ReportedResidentsArePinnedUntilTheDirective) {
  const auto a = tiny.mlp("a");
  const std::size_t one = tiny.load(a)->bytes();
  TinyEngine small({2}, one + one / 2);
  const auto x = small.mlp("x"), y = small.mlp("y");
  small.load(x);
  small.controller.on_observation = [&](const wire::Observation& o) {
    EXPECT_EQ(o.residents.added.size(), 1u);
    small.load(y);  // another session loads meanwhile; x must not be evicted for it
    EXPECT_NE(small.residents.find({0, x.version.ref}), nullptr);
    return use(o, x, /*payload=*/false);
  };
  small.connect();
  RunOptions o = options();
  auto run = must(SessionRun::open(*small.engine, prompt(), std::move(o), [](Session& s) {
    return s.write(4, [](std::int32_t) { return true; });
  }));
  must(run->prefill({}));
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kDirective);
  EXPECT_EQ(small.controller.heard_of<wire::FetchMemory>().size(), 0u);
}

TEST_F(StepLoopTest, AMemoryThatADirectiveBringsTakesTheRoomOfTheOneUnusedForLongest) {
  const std::size_t one = tiny.load(tiny.mlp("a"))->bytes();
  TinyEngine small({2}, 2 * one + one / 2);
  const std::vector<FakeController::Stored> all = {small.mlp("x"), small.mlp("y"), small.mlp("z")};
  small.controller.on_observation = [&](const wire::Observation& o) {
    return use(o, all[o.step % all.size()], true);
  };
  small.connect();
  auto run = must(SessionRun::open(*small.engine, prompt(), options(), [](Session& s) {
    return s.write(4, [](std::int32_t) { return true; });
  }));
  must(run->prefill({}));
  for (std::size_t step = 0; step < 7; ++step) {
    const MemoryRef& now = all[step % all.size()].version.ref;
    EXPECT_EQ(must(run->steps().run_one()).active[0].ref, now);
    EXPECT_NE(small.residents.find({0, now}), nullptr) << "step " << step;
    EXPECT_EQ(small.residents.size(), std::min<std::size_t>(step + 1, 2));
  }
}

TEST_F(StepLoopTest, ADirectivesResidentIsNotEvictedForWhatItBringsForAnotherSlot) {
  const std::size_t one = tiny.load(tiny.mlp("a"))->bytes();
  TinyEngine small({1, 2}, one + one / 2);
  const auto x = small.mlp("x", 0), y = small.mlp("y", 1);
  small.load(x, 0);
  small.controller.on_observation = [&](const wire::Observation& o) {
    FakeController::Answer answer = use(o, y, true);
    auto& actions = std::get<wire::Directive>(answer.body).actions;
    actions[0].slot = 1;  // first what comes along, then what is there
    actions.push_back({0, wire::ActionKind::kUse, x.version.ref, x.version.sha256, -1});
    return answer;
  };
  small.connect();
  auto run = must(SessionRun::open(*small.engine, prompt(), options(), [](Session& s) {
    return s.write(4, [](std::int32_t) { return true; });
  }));
  must(run->prefill({}));
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].ref, x.version.ref);
  EXPECT_EQ(report.active[1].ref, y.version.ref);
  EXPECT_TRUE(small.controller.heard_of<wire::FetchMemory>().empty());
}

TEST_F(StepLoopTest, WithoutARoomForResidentsAMemoryStillRuns) {
  TinyEngine none({2}, 0);
  const auto memory = none.mlp("a");
  none.controller.on_observation = [&](const wire::Observation& o) {
    EXPECT_TRUE(o.residents.added.empty());
    return use(o, memory, true);
  };
  none.connect();
  auto run = must(SessionRun::open(*none.engine, prompt(), options(), [](Session& s) {
    return s.write(4, [](std::int32_t) { return true; });
  }));
  must(run->prefill({}));
  EXPECT_EQ(must(run->steps().run_one()).active[0].ref, memory.version.ref);
  EXPECT_FALSE(must(run->steps().run_one()).swap.changed) << "the same memory is not loaded again";
}

TEST_F(StepLoopTest, AsyncAppliesADirectiveOneStepLater) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    return o.step == 0 ? use(o, memory, true) : to_base(o);
  };
  auto o = options();
  o.select = wire::SelectMode::kAsync;
  auto run = open(std::move(o));
  const StepReport zero = must(run->steps().run_one());
  EXPECT_EQ(zero.active[0].reason, ActiveReason::kOpening);
  EXPECT_TRUE(zero.active[0].ref.id.empty());
  const StepReport one = must(run->steps().run_one());
  EXPECT_EQ(one.active[0].reason, ActiveReason::kLate);
  EXPECT_EQ(one.active[0].ref, memory.version.ref);
  const StepReport two = must(run->steps().run_one());
  EXPECT_EQ(two.active[0].reason, ActiveReason::kLate);
  EXPECT_TRUE(two.active[0].ref.id.empty());
}

TEST_F(StepLoopTest, AsyncKeepMeansWhatTheObservationReported) {
  const auto a = tiny.mlp("a"), b = tiny.mlp("b");
  controller.on_observation =
      [&](const wire::Observation& o) -> std::optional<FakeController::Answer> {
    if (o.step == 0) return use(o, a, true);
    if (o.step == 1) return use(o, b, true);
    wire::Directive keep;  // at step 2 step 1 is reported, which ran a; step 2 runs b meanwhile
    keep.session = o.session;
    keep.step = o.step;
    keep.actions.push_back({0, wire::ActionKind::kKeep, o.active[0].ref, {}, -1});
    return FakeController::Answer{std::move(keep), {}};
  };
  auto o = options();
  o.select = wire::SelectMode::kAsync;
  auto run = open(std::move(o));
  must(run->steps().run_one());
  EXPECT_EQ(must(run->steps().run_one()).active[0].ref, a.version.ref);
  EXPECT_EQ(must(run->steps().run_one()).active[0].ref, b.version.ref);
  const StepReport back = must(run->steps().run_one());
  EXPECT_EQ(controller.heard_of<wire::Observation>()[2].active[0].ref, a.version.ref);
  EXPECT_EQ(back.active[0].ref, a.version.ref);
  EXPECT_EQ(back.active[0].reason, ActiveReason::kLate);
  EXPECT_TRUE(back.swap.changed);
  ASSERT_NE(run->session().slot(0).active(), nullptr);
  EXPECT_EQ(run->session().slot(0).active()->sha256(), a.version.sha256);
}

TEST_F(StepLoopTest, AsyncMissedDeadlineKeeps) {
  controller.on_observation = [&](const wire::Observation&) { return std::nullopt; };
  auto o = options();
  o.select = wire::SelectMode::kAsync;
  o.deadline = 40ms;
  auto run = open(std::move(o));
  must(run->steps().run_one());
  EXPECT_EQ(must(run->steps().run_one()).active[0].reason, ActiveReason::kMissedDeadline);
}

TEST_F(StepLoopTest, APinnedMemoryIsActiveFromTheFirstTokenAndAsksForNoDirective) {
  const auto memory = tiny.mlp("a");
  controller.store(memory);
  auto o = options(MemoryChoice::Kind::kNamed);
  o.session.memory.ref = {"default", "a", 0};
  auto run = open(std::move(o));
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kPinned);
  EXPECT_EQ(report.active[0].ref, memory.version.ref);
  EXPECT_TRUE(controller.heard_of<wire::Observation>().empty());
  EXPECT_EQ(run->session().tokens(), alone_with(&memory, 4));
}

TEST_F(StepLoopTest, APinnedMemoryThatDoesNotExistIsAnError) {
  tiny.connect();
  auto o = options(MemoryChoice::Kind::kNamed);
  o.session.memory.ref = {"default", "nowhere", 0};
  auto run = SessionRun::open(*tiny.engine, prompt(), std::move(o), {});
  ASSERT_FALSE(run.has_value());
  EXPECT_EQ(run.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(controller.wait_for<wire::CloseSession>(1)) << "its session is closed again";
}

TEST_F(StepLoopTest, AForcedSwapCountsFromItsStepOn) {
  const auto memory = tiny.mlp("a");
  controller.store(memory);
  auto o = options(MemoryChoice::Kind::kBase);
  o.needs_controller = true;
  auto run = open(std::move(o));
  EXPECT_TRUE(must(run->steps().run_one()).active[0].ref.id.empty());
  must(run->swap_to({MemoryChoice::Kind::kNamed, {"default", "a", 0}}));
  const StepReport swapped = must(run->steps().run_one());
  EXPECT_EQ(swapped.active[0].ref, memory.version.ref);
  EXPECT_EQ(swapped.active[0].reason, ActiveReason::kPinned);
  must(run->swap_to({MemoryChoice::Kind::kBase, {}}));
  EXPECT_TRUE(must(run->steps().run_one()).active[0].ref.id.empty());
}

TEST_F(StepLoopTest, ABaseSessionNeedsNoController) {
  tiny.connect();
  controller.stop();
  auto run = open(options(MemoryChoice::Kind::kBase));
  must(run->steps().run_one());
  EXPECT_EQ(run->session().tokens(), alone_with(nullptr, 4));
}

TEST_F(StepLoopTest, ALostControllerDoesNotHoldAStepUp) {
  auto run = open(options());
  must(run->steps().run_one());
  controller.stop();
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (tiny.link->connected() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(5ms);
  ASSERT_FALSE(tiny.link->connected());
  const auto start = std::chrono::steady_clock::now();
  const StepReport report = must(run->steps().run_one());
  EXPECT_LT(std::chrono::steady_clock::now() - start, 1s) << "the deadline is 2 s";
  EXPECT_EQ(report.active[0].reason, ActiveReason::kMissedDeadline);
}

TEST_F(StepLoopTest, ARestartedControllerGetsTheSessionOpenedAgainWithAllResidents) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    return use(o, memory, o.step == 0);
  };
  auto run = open(options());
  must(run->steps().run_one());
  must(run->steps().run_one());
  controller.stop();
  controller.start(/*incarnation=*/2);
  const StepReport report = must(run->steps().run_one());
  EXPECT_EQ(report.active[0].reason, ActiveReason::kDirective);
  EXPECT_EQ(controller.heard_of<wire::OpenSession>().size(), 2u);
  const auto seen = controller.heard_of<wire::Observation>();
  EXPECT_EQ(seen.back().step, 2u);
  EXPECT_EQ(seen.back().residents.base_epoch, 0u);
  ASSERT_EQ(seen.back().residents.added.size(), 1u);
}

TEST_F(StepLoopTest, ARestartedControllerGetsTheWholeWindow) {
  tiny.connect();
  auto o = options();
  o.sampled = false;
  auto run = must(SessionRun::open(*tiny.engine, prompt(120), std::move(o),
                                   [](Session& s) { return s.read(4); }));
  std::vector<wire::ChunkSummary> told;
  for (int i = 0; i < 26; ++i) {
    if (i == 25) {
      controller.stop();
      controller.start(/*incarnation=*/2);
    }
    must(run->steps().run_one());
    const auto seen = controller.heard_of<wire::Observation>().back();
    EXPECT_EQ(seen.whole_window, i == 0 || i == 25) << i;
    if (i == 25) break;
    EXPECT_EQ(seen.chunks.size(), i == 0 ? 0u : 1u) << "observation 0: nothing was read yet";
    EXPECT_EQ(seen.steps_since_swap, static_cast<std::uint32_t>(i + 1));
    told.insert(told.end(), seen.chunks.begin(), seen.chunks.end());
  }
  const auto all = controller.heard_of<wire::Observation>().back();
  ASSERT_EQ(all.chunks.size(), 25u);  // 99 tokens: all fit the window
  EXPECT_TRUE(std::equal(told.begin(), told.end(), all.chunks.begin()));
  EXPECT_EQ(all.steps_since_swap, 26u);
}

TEST_F(StepLoopTest, AfterAMissedDeadlineTheControllerGetsTheWholeWindow) {
  controller.on_observation =
      [&](const wire::Observation& o) -> std::optional<FakeController::Answer> {
    if (o.step == 1) return std::nullopt;
    return to_base(o);
  };
  auto o = options();
  o.deadline = 60ms;
  auto run = open(std::move(o));
  for (int i = 0; i < 4; ++i) must(run->steps().run_one());
  std::map<std::uint64_t, wire::Observation> seen;  // step 1 may have come several times
  for (auto& observation : controller.heard_of<wire::Observation>()) {
    seen[observation.step] = std::move(observation);
  }
  EXPECT_FALSE(seen[1].whole_window);
  EXPECT_TRUE(seen[2].whole_window);
  EXPECT_EQ(seen[2].chunks.size(), 4u);  // two of the prompt, and those of two steps
  EXPECT_FALSE(seen[3].whole_window);
  EXPECT_EQ(seen[3].chunks.size(), 1u);
}

TEST_F(StepLoopTest, OnlyTheNewestTokensOfTheWindowAreToldAgain) {
  auto run = open(options(), /*step=*/16);  // 22 of the prompt and 6 steps: room for 104
  for (int i = 0; i < 6; ++i) must(run->steps().run_one());
  Selector& selector = *run->selector();
  controller.stop();
  controller.start(/*incarnation=*/2);
  wire::Observation more = run->steps().outcome();
  for (int i = 0; i < 3; ++i) more.chunks.push_back(more.chunks[0]);
  must(selector.observe(std::move(more), tiny.clock.now() + 5s));
  const auto all = controller.heard_of<wire::Observation>().back();
  EXPECT_TRUE(all.whole_window);
  std::uint32_t tokens = 0;
  for (const wire::ChunkSummary& chunk : all.chunks) tokens += chunk.tokens;
  EXPECT_EQ(tokens, wire::kWindowTokens);
}

TEST_F(StepLoopTest, StepsAreCountedFromTheLastSwapOn) {
  const auto a = tiny.mlp("a"), b = tiny.mlp("b");
  controller.on_observation = [&](const wire::Observation& o) {
    return o.step == 3 ? to_base(o) : use(o, o.step < 2 ? a : b, true);
  };
  auto run = open(options());
  for (int i = 0; i < 6; ++i) must(run->steps().run_one());
  std::vector<std::uint32_t> counted;
  for (const auto& seen : controller.heard_of<wire::Observation>()) {
    counted.push_back(seen.steps_since_swap);
  }
  EXPECT_EQ(counted, (std::vector<std::uint32_t>{1, 1, 2, 1, 1, 1}));
}

TEST_F(StepLoopTest, AskedForTheResidentsAgainItSendsThemWhole) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) {
    auto answer = use(o, memory, o.step == 0);
    std::get<wire::Directive>(answer.body).need_residents = o.step == 1;
    return answer;
  };
  auto run = open(options());
  for (int i = 0; i < 3; ++i) must(run->steps().run_one());
  const auto seen = controller.heard_of<wire::Observation>();
  EXPECT_NE(seen[1].residents.base_epoch, 0u);
  EXPECT_EQ(seen[2].residents.base_epoch, 0u);
  EXPECT_EQ(seen[2].residents.added.size(), 1u);
}

TEST_F(StepLoopTest, ReadingWithABaseRunBesideItReportsTheGain) {
  const auto memory = tiny.mlp("a");
  controller.on_observation = [&](const wire::Observation& o) { return use(o, memory, true); };
  tiny.connect();
  auto o = options();
  o.sampled = false;
  o.with_base = true;
  auto run = must(SessionRun::open(*tiny.engine, prompt(40), std::move(o),
                                   [](Session& s) { return s.read(16); }));
  const StepReport first = must(run->steps().run_one());
  ASSERT_TRUE(first.gain.has_value());
  EXPECT_NE(*first.gain, 0.0f);
  must(run->steps().run_one());
  const auto seen = controller.heard_of<wire::Observation>();
  EXPECT_FALSE(seen[0].gain.has_value());
  ASSERT_TRUE(seen[1].gain.has_value());
  EXPECT_EQ(*seen[1].gain, *first.gain);
  EXPECT_FALSE(seen[1].sampled);
}

TEST_F(StepLoopTest, CountsWhereSwapsCameFromAndMissedDeadlines) {
  const auto sent = tiny.mlp("sent"), gone = tiny.mlp("gone");
  controller.store(gone);
  controller.on_observation =
      [&](const wire::Observation& o) -> std::optional<FakeController::Answer> {
    switch (o.step) {
      case 0: return use(o, sent, /*payload=*/true);
      case 1: return to_base(o);
      case 2: return use(o, sent, /*payload=*/true);  // it is here already
      case 3: return use(o, gone, /*payload=*/false);
      default: return std::nullopt;
    }
  };
  auto o = options();
  o.deadline = 300ms;
  auto run = open(std::move(o));
  for (int step = 0; step < 5; ++step) must(run->steps().run_one());
  metrics::Page page;
  tiny.probe.collect(page);
  for (const char* sample :
       {"swap_seconds_count{source=\"loaded\"} 2", "swap_seconds_count{source=\"resident\"} 1",
        "swap_seconds_count{source=\"base\"} 1", "resident_lookups_total{result=\"hit\"} 1",
        "resident_lookups_total{result=\"miss\"} 2", "slot_steps_total{reason=\"directive\"} 4",
        "slot_steps_total{reason=\"missed_deadline\"} 1", "missed_deadlines_total 1",
        "selection_seconds_count 4", "steps_total{work=\"write\"} 5", "token_seconds_count 20",
        "prefill_tokens_total 23"}) {
    EXPECT_THAT(page.text(),
                testing::HasSubstr("\nmemslot_generator_" + std::string(sample) + "\n"));
  }
}

TEST_F(StepLoopTest, SessionsAtOnceEachWriteWhatTheyWouldAlone) {
  const auto a = tiny.mlp("a"), b = tiny.lora("b");
  controller.store(a);
  controller.store(b);
  tiny.connect();
  std::vector<std::thread> threads;
  std::vector<std::vector<std::int32_t>> texts(3);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      auto o = options(i == 2 ? MemoryChoice::Kind::kBase : MemoryChoice::Kind::kNamed);
      o.session.memory.ref = {"default", i == 0 ? "a" : "b", 0};
      auto run = open(std::move(o), 2);
      for (int step = 0; step < 10; ++step) must(run->steps().run_one());
      texts[static_cast<std::size_t>(i)] = run->session().tokens();
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(texts[0], alone_with(&a, 20));
  EXPECT_EQ(texts[1], alone_with(&b, 20));
  EXPECT_EQ(texts[2], alone_with(nullptr, 20));
}

}  // namespace
}  // namespace memslot
