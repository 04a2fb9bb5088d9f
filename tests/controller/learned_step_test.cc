// Sessions of the learned policy: snapshot, whitening, episodes, feedback.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "controller/step/step_handler.h"
#include "tests/controller/learned.h"
#include "tests/controller/opening.h"

namespace memslot {
namespace {

using wire::ActionKind;

const PeerId kPeer = "generator-1";

struct LearnedStepTest : testing::Test {
  void SetUp() override {
    for (unsigned i = 0; i < 8; ++i) {
      bank.publish({.id = numbered(i), .keys = keys_around(centre_of(i), 6, 0.1f, rng)});
    }
    ASSERT_TRUE(keeper.build());
    shelf.publish(cosine_checkpoint(20).bytes(), "file", "", kFarDeadline).value();
  }
  wire::Observation observe(std::uint64_t step, unsigned near, const MemoryRef& active = {}) const {
    wire::Observation o;
    o.session = 5;
    o.step = step;
    o.chunks = {{centre_of(near), 32}};
    o.tokens = 16;
    o.active = {{.slot = 0, .ref = active, .reason = wire::ActiveReason::kDirective}};
    return o;
  }
  std::string opened(StepHandler& handler, const wire::OpenSession& open) {
    const auto reply = handler.open(kPeer, open, kFarDeadline);
    EXPECT_TRUE(reply) << reply.error().message;
    return reply ? reply.value().policy : "";
  }
  wire::Directive step(StepHandler& handler, const wire::Observation& observation) {
    auto plan = handler.handle(kPeer, observation, kFarDeadline);
    EXPECT_TRUE(plan) << plan.error().message;
    return plan ? plan.value().directive : wire::Directive{};
  }

  std::mt19937 rng{3};
  TestBank bank;
  DocumentBank documents{bank.store(), bank.clock()};
  PolicyShelf shelf{documents, bank.clock(), cosine_engine()};
  FeedbackDesk desk{documents, bank.clock()};
  OnlineLearning learning{shelf, desk, bank.clock(), {}, [] {}};
  IndexKeeper keeper{bank.bank(), bank.clock(), [] {}};
  PayloadCache payloads{bank.bank(), 1 << 20};
  SessionTable sessions{4};
  StepHandler steps{bank.bank(), keeper, payloads, sessions, {.default_policy = "auto"}, {&shelf}};
};

TEST_F(LearnedStepTest, ASessionThatNamesNoneHasTheLoadedOneAndIsToldItsDigest) {
  EXPECT_EQ(opened(steps, opening("")), "learned:" + shelf.head()->digest);
  const auto d = step(steps, observe(0, 4));
  EXPECT_EQ(d.actions[0].action, ActionKind::kUse);
  EXPECT_EQ(d.actions[0].ref.id, "m4");
}

TEST_F(LearnedStepTest, WhereItDoesNotFitTheDefaultIsNearestAndAskingForItIsAnError) {
  auto other = opening("");
  other.slots[0].layer = 4;
  EXPECT_EQ(opened(steps, other), "nearest");
  other.session = 6;
  other.policy = "learned";
  const auto refused = steps.open(kPeer, other, kFarDeadline);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kMismatch);
  EXPECT_NE(refused.error().message.find("layer 4"), std::string::npos) << refused.error().message;
}

TEST_F(LearnedStepTest, WithoutALoadedOneAskingForItIsAnErrorThatSaysWhatToDo) {
  PolicyShelf empty{documents, bank.clock(), {}};
  StepHandler bare{bank.bank(), keeper, payloads, sessions, {.default_policy = "auto"}, {&empty}};
  const auto refused = bare.open(kPeer, opening("learned"), kFarDeadline);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_NE(refused.error().message.find("policy load"), std::string::npos);
  EXPECT_EQ(opened(bare, opening("")), "nearest");
}

TEST_F(LearnedStepTest, ASessionFinishesOnTheSnapshotAndWhiteningItBeganWith) {
  // What the whole session would have been told had nothing been loaded.
  std::vector<wire::Directive> wanted;
  opened(steps, opening(""));
  for (std::uint64_t t = 0; t < 6; ++t) wanted.push_back(step(steps, observe(t, 1)));
  sessions.close(5);
  opened(steps, opening(""));
  for (std::uint64_t t = 0; t < 6; ++t) {
    if (t == 3) {
      // The contrary, in another whitening, which the index takes over.
      const auto other = shelf.publish(cosine_checkpoint(-20, 2).bytes(), "file", "", kFarDeadline);
      keeper.pin(std::make_shared<CandidateIndex::Pinned>(
          CandidateIndex::Pinned{"", -1, other.value()->checkpoint.whitening}));
      for (int i = 0; i < 500 && !keeper.adopt(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      ASSERT_EQ(keeper.index().whitening_digest(space_of(opening(""), opening("").slots[0])),
                other.value()->space);
    }
    const auto got = step(steps, observe(t, 1));
    EXPECT_EQ(got.actions, wanted[t].actions) << t;
    EXPECT_NEAR(got.log_prob, wanted[t].log_prob, 1e-5) << t;
  }
  EXPECT_EQ(opened(steps, opening("", 8)), "learned:" + shelf.head()->digest);
}

TEST_F(LearnedStepTest, ARestartedControllerGoesOnWithTheSnapshotBitForBit) {
  const std::string spec = opened(steps, opening(""));
  for (std::uint64_t t = 0; t < 3; ++t) step(steps, observe(t, 2));
  const auto wanted = step(steps, observe(3, 2));
  shelf.publish(cosine_checkpoint(-20, 2).bytes(), "online", "", kFarDeadline).value();

  PolicyShelf shelf2{documents, bank.clock(), cosine_engine()};
  ASSERT_TRUE(shelf2.load(kFarDeadline));
  IndexKeeper keeper2{bank.bank(), bank.clock(), [] {}};
  ASSERT_TRUE(keeper2.build());
  SessionTable sessions2{4};
  StepHandler steps2{bank.bank(), keeper2, payloads, sessions2, {.default_policy = "auto"},
                     {&shelf2}};
  EXPECT_EQ(opened(steps2, opening(spec)), spec);
  auto whole = observe(3, 2);
  whole.whole_window = true;
  EXPECT_EQ(step(steps2, whole), wanted);
}

TEST_F(LearnedStepTest, TheIndexThatFollowsThePolicyGivesItsSimilaritiesItself) {
  keeper.pin(std::make_shared<CandidateIndex::Pinned>(CandidateIndex::Pinned{
      shelf.head()->checkpoint.task.model, 3, shelf.head()->checkpoint.whitening}));
  // What was built before is made anew.
  const auto adopted = [&] {
    for (int i = 0; i < 500; ++i) {
      if (keeper.adopt()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  };
  const SpaceKey space = space_of(opening(""), opening("").slots[0]);
  const std::string own = keeper.index().whitening_digest(space);
  ASSERT_TRUE(adopted());
  EXPECT_EQ(keeper.index().whitening_digest(space), shelf.head()->space);
  for (unsigned i = 20; i < 60; ++i) {
    const auto v =
        bank.publish({.id = numbered(i), .keys = keys_around(centre_of(i), 6, 0.1f, rng)});
    keeper.changed(v.ref);
  }
  EXPECT_FALSE(keeper.index().refit_due());
  opened(steps, opening(""));
  EXPECT_EQ(step(steps, observe(0, 33)).actions[0].ref.id, "m33");
  keeper.pin(nullptr);  // it was unloaded
  ASSERT_TRUE(adopted());
  EXPECT_NE(keeper.index().whitening_digest(space), shelf.head()->space);
  EXPECT_NE(keeper.index().whitening_digest(space), own) << "there are three times the keys";
}

// Keeps what it was shown, and takes base.
class Witness final : public SelectionPolicy {
 public:
  Witness(std::shared_ptr<std::map<std::string, Candidate>> seen, std::string digest)
      : seen_(std::move(seen)), digest_(std::move(digest)) {}
  std::string_view name() const override { return "learned"; }
  std::string_view digest() const override { return digest_; }
  Choice choose(const StepContext&, std::span<const Candidate> candidates) const override {
    seen_->clear();
    for (const Candidate& c : candidates) (*seen_)[c.ref.id] = c;
    return {.index = 0, .log_prob = 0, .scores = std::vector<float>(candidates.size(), 0.0f)};
  }

 private:
  std::shared_ptr<std::map<std::string, Candidate>> seen_;
  std::string digest_;
};

TEST_F(LearnedStepTest, BothWindowsAreComparedAlikeByTheIndexAndFromRawKeys) {
  const auto seen = std::make_shared<std::map<std::string, Candidate>>();
  PolicyShelf own{documents,
                  bank.clock(),
                  {.make_policy =
                       [&](const Checkpoint& c) {
                         return Result<std::shared_ptr<const SelectionPolicy>>(
                             std::make_shared<Witness>(seen, c.digest()));
                       },
                   .go_on_from = {}}};
  Checkpoint checkpoint = cosine_checkpoint(1);
  checkpoint.task.window_tokens = 16;
  checkpoint.task.long_window_tokens = 64;
  ASSERT_TRUE(own.publish(checkpoint.bytes(), "file", "", kFarDeadline));
  StepHandler handler{bank.bank(), keeper, payloads, sessions, {.default_policy = "auto"}, {&own}};
  const auto after_a_switch = [&] {
    opened(handler, opening(""));
    step(handler, observe(0, 1));
    step(handler, observe(1, 2));
    sessions.close(5);
    return *seen;
  };
  const auto raw = after_a_switch();
  EXPECT_GT(raw.at("m2").best_key, 0.7f);
  EXPECT_LT(raw.at("m2").long_key, raw.at("m2").best_key);
  EXPECT_GT(raw.at("m1").long_key, raw.at("m1").best_key + 0.2f);
  keeper.pin(std::make_shared<CandidateIndex::Pinned>(
      CandidateIndex::Pinned{"", -1, checkpoint.whitening}));
  ASSERT_TRUE(keeper.build());
  const auto indexed = after_a_switch();
  for (const auto& [id, c] : indexed) {
    ASSERT_TRUE(raw.contains(id));
    EXPECT_NEAR(c.best_key, raw.at(id).best_key, 1e-5) << id;
    EXPECT_NEAR(c.mean_key, raw.at(id).mean_key, 1e-5) << id;
    EXPECT_NEAR(c.long_key, raw.at(id).long_key, 1e-5) << id;
  }
}

TEST_F(LearnedStepTest, AnEmptyBankAndABankOfOneAreAnswered) {
  TestBank empty;
  IndexKeeper none{empty.bank(), empty.clock(), [] {}};
  ASSERT_TRUE(none.build());
  PayloadCache no_payloads{empty.bank(), 1 << 20};
  SessionTable table{4};
  StepHandler bare{empty.bank(), none, no_payloads, table, {.default_policy = "auto"}, {&shelf}};
  opened(bare, opening(""));
  auto d = step(bare, observe(0, 1));
  EXPECT_EQ(d.actions[0].action, ActionKind::kKeep);
  EXPECT_EQ(d.candidates, 1u);
  const auto v = empty.publish({.id = "only", .keys = keys_around(centre_of(1), 6, 0.1f, rng)});
  none.changed(v.ref);
  d = step(bare, observe(1, 1));
  EXPECT_EQ(d.actions[0].ref.id, "only");
}

TEST_F(LearnedStepTest, AMemoryThatIsErasedBetweenTheListAndItsPayloadIsKeptOut) {
  keeper.pin(std::make_shared<CandidateIndex::Pinned>(
      CandidateIndex::Pinned{"", -1, shelf.head()->checkpoint.whitening}));
  ASSERT_TRUE(keeper.build());
  opened(steps, opening(""));
  ASSERT_TRUE(bank.bank().erase({.ns = "default", .id = "m4"}, kFarDeadline));
  const auto d = step(steps, observe(0, 4));  // the index has not heard of it
  EXPECT_EQ(d.actions[0].action, ActionKind::kKeep);
  EXPECT_EQ(steps.counters().payload_failed, 1u);
}

struct OnlineStepTest : LearnedStepTest {
  StepHandler online{bank.bank(),
                     keeper,
                     payloads,
                     sessions,
                     {.default_policy = "auto"},
                     {&shelf, &learning, &desk}};
  MemoryRef active;
  // Runs a step and follows it; `gain` as a reading session reports it.
  wire::Directive run(std::uint64_t t, std::optional<float> gain, bool sampled = false,
                      wire::ActiveReason reason = wire::ActiveReason::kDirective) {
    auto o = observe(t, 4, active);
    o.gain = gain;
    o.sampled = sampled;
    o.active[0].reason = reason;
    const auto d = step(online, o);
    if (d.actions[0].action == ActionKind::kUse) active = d.actions[0].ref;
    if (d.actions[0].action == ActionKind::kBase) active = {};
    return d;
  }
  void close(std::uint64_t t, std::optional<float> gain, bool sampled) {
    auto o = observe(t, 4, active);
    o.gain = gain;
    o.sampled = sampled;
    ASSERT_TRUE(online.close(kPeer, {.session = 5, .last = o}));
  }
  // How many episodes the learner left, once there is one.
  std::uint64_t left() {
    for (int i = 0; i < 2500 && learning.view().strange == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return learning.view().strange;
  }
};

TEST_F(OnlineStepTest, AReadingSessionGivesItsEpisodeToTheLearner) {
  opened(online, opening(""));
  for (std::uint64_t t = 0; t < 5; ++t) run(t, 0.5f);
  EXPECT_EQ(learning.view().queued, 0u);
  close(5, 0.5f, false);
  EXPECT_EQ(learning.view().queued, 1u);
}

TEST_F(OnlineStepTest, AnEpisodeOfAPolicyThatWasUnloadedIsLeft) {
  opened(online, opening(""));
  for (std::uint64_t t = 0; t < 5; ++t) run(t, 0.5f);
  close(5, 0.5f, false);
  ASSERT_TRUE(shelf.retire(kFarDeadline));
  learning.start();
  EXPECT_EQ(left(), 1u);
  EXPECT_EQ(learning.view().counts.episodes, 0u);
}

TEST_F(OnlineStepTest, FeedbackIsKeptWhileNoPolicyActs) {
  opened(online, opening(""));
  for (std::uint64_t t = 0; t < 4; ++t) run(t, std::nullopt, t > 0);
  close(4, std::nullopt, true);
  WaitingEpisode waiting = desk.take(5).value();
  ASSERT_TRUE(desk.give(waiting, 0.5f, kFarDeadline));
  ASSERT_TRUE(shelf.retire(kFarDeadline));
  learning.start();  // brings it back
  EXPECT_EQ(left(), 1u);
  EXPECT_EQ(desk.given(kFarDeadline).size(), 1u);
}

TEST_F(OnlineStepTest, ALongTextIsHandedOverInPieces) {
  opened(online, opening(""));
  for (std::uint64_t t = 0; t <= 2 * EpisodeRecorder::kMeasuredSteps; ++t) run(t, 0.5f);
  EXPECT_EQ(learning.view().queued, 2u);
}

TEST_F(OnlineStepTest, WhatWasMissedPinnedOrNotFiniteTrainsNothing) {
  opened(online, opening(""));
  run(0, 0.5f);
  run(1, 0.5f, false, wire::ActiveReason::kMissedDeadline);
  run(2, std::numeric_limits<float>::quiet_NaN());
  run(3, 0.5f, false, wire::ActiveReason::kPinned);
  close(4, 0.5f, false);
  EXPECT_EQ(learning.view().queued, 0u);
}

TEST_F(OnlineStepTest, WhatWasWrittenWaitsForFeedbackAndIsDurableOnceJudged) {
  opened(online, opening(""));
  for (std::uint64_t t = 0; t < 4; ++t) run(t, std::nullopt, t > 0);
  close(4, std::nullopt, true);
  EXPECT_EQ(learning.view().queued, 0u);
  EXPECT_EQ(desk.take(99).error().code, ErrorCode::kNotFound);
  auto waiting = desk.take(5);
  ASSERT_TRUE(waiting) << waiting.error().message;
  EXPECT_EQ(waiting.value().episode.steps.size(), 4u);
  const auto name = desk.give(waiting.value(), 1.0f, kFarDeadline);
  ASSERT_TRUE(name) << name.error().message;
  // Another controller on the same bank learns from it; once used it is gone.
  FeedbackDesk desk2{documents, bank.clock()};
  const auto given = desk2.given(kFarDeadline);
  ASSERT_EQ(given.size(), 1u);
  EXPECT_EQ(given[0].space, shelf.head()->space);
  ASSERT_EQ(given[0].episode.steps.size(), 4u);
  EXPECT_FLOAT_EQ(given[0].episode.steps[1].reward, kFeedbackNats);
  ASSERT_TRUE(desk2.used({given[0].name}, kFarDeadline));
  EXPECT_TRUE(desk2.given(kFarDeadline).empty());
  EXPECT_EQ(desk.take(5).error().code, ErrorCode::kNotFound) << "judged twice";
}

TEST_F(OnlineStepTest, ItsGainIsCountedAboveTheGenericOne) {
  Checkpoint c = cosine_checkpoint(20);
  c.task.generic_gain = 0.2f;
  shelf.publish(c.bytes(), "file", "", kFarDeadline).value();
  opened(online, opening(""));
  for (std::uint64_t t = 0; t < 4; ++t) run(t, 0.5f);
  const auto known = keeper.index().find("default", active.id);
  ASSERT_NE(known, nullptr);
  EXPECT_NEAR(known->mean_net_gain, 0.3, 1e-5);
}

TEST(GenericGain, BeginsWithThePriorFollowsWhatIsSeenAndIsNeverBelowZero) {
  GenericGain generic(0.1);
  EXPECT_FLOAT_EQ(generic.value(), 0.1f);
  for (int i = 0; i < 3000; ++i) generic.add(0.4);
  EXPECT_NEAR(generic.value(), 0.4, 0.01);
  generic.add(std::nan(""));
  EXPECT_NEAR(generic.value(), 0.4, 0.01);
  for (int i = 0; i < 5000; ++i) generic.add(-0.3);
  EXPECT_EQ(generic.value(), 0.0f);
}

}  // namespace
}  // namespace memslot
