#include "controller/step/step_handler.h"

#include <gtest/gtest.h>

#include "tests/controller/memories.h"
#include "tests/controller/opening.h"

namespace memslot {
namespace {

using wire::ActionKind;

const PeerId kPeer = "generator-1";

class StepHandlerTest : public testing::Test {
 protected:
  void SetUp() override {
    for (unsigned i = 0; i < 8; ++i) publish(numbered(static_cast<unsigned>(i)), i);
    ASSERT_TRUE(keeper_.build());
  }
  MemoryVersion publish(const std::string& id, unsigned number, const std::string& ns = "default",
                        const SlotSignature& signature = slot_signature()) {
    return bank_.publish({.id = id,
                          .ns = ns,
                          .keys = keys_around(centre_of(number), 6, 0.1f, rng_),
                          .signature = signature,
                          .value = static_cast<float>(number) + 0.5f});
  }
  void open(const wire::OpenSession& request) {
    const auto opened = steps_.open(kPeer, request, kFarDeadline);
    ASSERT_TRUE(opened) << opened.error().message;
  }
  static wire::Observation observe(std::uint64_t step, int near = -1,
                                   const MemoryRef& active = {}) {
    wire::Observation o;
    o.session = 5;
    o.step = step;
    if (near >= 0) {
      o.chunks = {{centre_of(static_cast<unsigned>(near)), 32}};
    }
    o.tokens = 16;
    o.active = {{.slot = 0, .ref = active, .reason = wire::ActiveReason::kDirective}};
    return o;
  }
  StepHandler::Plan step(const wire::Observation& observation) {
    auto plan = steps_.handle(kPeer, observation, kFarDeadline);
    if (!plan) {
      ADD_FAILURE() << plan.error().message;
      return {};
    }
    return std::move(plan).value();
  }
  void expect_error(const wire::Observation& observation, ErrorCode code) {
    const auto plan = steps_.handle(kPeer, observation, kFarDeadline);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code, code) << plan.error().message;
  }
  static MemoryRef ref(const std::string& id, std::uint64_t version = 1,
                       const std::string& ns = "default") {
    return {.ns = ns, .id = id, .version = version};
  }

  std::mt19937 rng_{3};
  TestBank bank_;
  IndexKeeper keeper_{bank_.bank(), bank_.clock(), [] {}};
  PayloadCache payloads_{bank_.bank(), 1 << 20};
  SessionTable sessions_{4};
  StepHandler steps_{bank_.bank(), keeper_, payloads_, sessions_, {}};
};

TEST_F(StepHandlerTest, AnswersTheNearestMemoryWithItsPayload) {
  open(opening());
  const auto plan = step(observe(0, 4));
  ASSERT_EQ(plan.directive.actions.size(), 1u);
  const wire::SlotAction& action = plan.directive.actions[0];
  EXPECT_EQ(action.action, ActionKind::kUse);
  EXPECT_EQ(action.ref, ref("m4"));
  ASSERT_EQ(action.part, 0);
  ASSERT_EQ(plan.parts.size(), 1u);
  EXPECT_EQ(sha256(*plan.parts[0]), action.sha256);
  EXPECT_EQ(plan.directive.session, 5u);
  EXPECT_EQ(plan.directive.candidates, 9u);
}

TEST_F(StepHandlerTest, LeavesThePayloadOutWhereItIsResident) {
  open(opening());
  auto observation = observe(0, 4);
  observation.residents = {.epoch = 3, .base_epoch = 0, .added = {{0, ref("m4")}}, .removed = {}};
  const auto plan = step(observation);
  EXPECT_EQ(plan.directive.actions[0].action, ActionKind::kUse);
  EXPECT_EQ(plan.directive.actions[0].part, -1);
  EXPECT_TRUE(plan.parts.empty());
  EXPECT_FALSE(plan.directive.need_residents);
  EXPECT_EQ(steps_.counters().resident, 1u);
  EXPECT_EQ(payloads_.misses(), 0u);
}

TEST_F(StepHandlerTest, FollowsTheResidentSetByDeltas) {
  open(opening());
  auto first = observe(0, 4);
  first.residents = {
      .epoch = 3, .base_epoch = 0, .added = {{0, ref("m4")}, {0, ref("m5")}}, .removed = {}};
  step(first);
  auto second = observe(1, 5);
  second.residents = {
      .epoch = 4, .base_epoch = 3, .added = {{0, ref("m6")}}, .removed = {{0, ref("m5")}}};
  EXPECT_EQ(step(second).directive.actions[0].part, 0);  // m5 was evicted
  auto third = observe(2, 6);
  third.residents = {.epoch = 4, .base_epoch = 4, .added = {}, .removed = {}};
  for (int i = 0; i < 3; ++i) {  // the window holds 32 tokens: one summary
    third.step = 2 + static_cast<std::uint64_t>(i);
    const auto plan = step(third);
    EXPECT_EQ(plan.directive.actions[0].ref, ref("m6"));
    EXPECT_EQ(plan.directive.actions[0].part, -1);
  }
}

TEST_F(StepHandlerTest, AsksForTheWholeResidentSetWhenADeltaDoesNotFit) {
  open(opening());
  auto lost = observe(0, 4);
  lost.residents = {.epoch = 8, .base_epoch = 7, .added = {{0, ref("m4")}}, .removed = {}};
  const auto plan = step(lost);
  EXPECT_TRUE(plan.directive.need_residents);
  EXPECT_EQ(plan.directive.actions[0].part, 0);  // unknown: sent rather than guessed
  auto whole = observe(1, 4);
  whole.residents = {.epoch = 9, .base_epoch = 0, .added = {{0, ref("m4")}}, .removed = {}};
  EXPECT_FALSE(step(whole).directive.need_residents);
  EXPECT_EQ(steps_.counters().residents_lost, 1u);
}

TEST_F(StepHandlerTest, KeepsWhatIsActiveAlready) {
  open(opening());
  const auto plan = step(observe(0, 4, ref("m4")));
  EXPECT_EQ(plan.directive.actions[0].action, ActionKind::kKeep);
  EXPECT_TRUE(plan.parts.empty());
}

TEST_F(StepHandlerTest, GoesBackToBaseWhereNothingIsNear) {
  open(opening("nearest:0.99"));
  const auto away = step(observe(0, 77, ref("m4")));
  EXPECT_EQ(away.directive.actions[0].action, ActionKind::kBase);
  const auto still = step(observe(1, 77));
  EXPECT_EQ(still.directive.actions[0].action, ActionKind::kKeep);
}

TEST_F(StepHandlerTest, KeepsWhatTheUserPinned) {
  open(opening("random"));
  for (std::uint64_t i = 0; i < 20; ++i) {
    auto observation = observe(i, 4, ref("m1"));
    observation.active[0].reason = wire::ActiveReason::kPinned;
    EXPECT_EQ(step(observation).directive.actions[0].action, ActionKind::kKeep);
  }
}

TEST_F(StepHandlerTest, TakesTheNewVersionOfAMemory) {
  open(opening());
  EXPECT_EQ(step(observe(0, 4)).directive.actions[0].ref, ref("m4"));
  keeper_.changed(publish("m4", 4).ref);
  const auto plan = step(observe(1, 4, ref("m4")));
  EXPECT_EQ(plan.directive.actions[0].action, ActionKind::kUse);
  EXPECT_EQ(plan.directive.actions[0].ref, ref("m4", 2));
}

TEST_F(StepHandlerTest, RepeatsTheDirectiveOfTheSameStepWithItsPayload) {
  open(opening("random"));
  for (std::uint64_t i = 0; i < 12; ++i) {
    const auto first = step(observe(i, 4));
    const auto again = step(observe(i, 6, ref("m2")));  // whatever a retry says
    ASSERT_EQ(again.directive.actions.size(), 1u);
    EXPECT_EQ(again.directive.actions[0].action, first.directive.actions[0].action);
    EXPECT_EQ(again.directive.actions[0].ref, first.directive.actions[0].ref);
    EXPECT_EQ(again.directive.log_prob, first.directive.log_prob);
    ASSERT_EQ(again.parts.size(), first.parts.size());
    for (std::size_t p = 0; p < again.parts.size(); ++p)
      EXPECT_EQ(*again.parts[p], *first.parts[p]);
  }
  EXPECT_EQ(steps_.counters().repeated, 12u);
  EXPECT_EQ(steps_.counters().steps, 12u);
}

TEST_F(StepHandlerTest, DecidesTheSameAfterARestart) {
  open(opening("random"));
  std::vector<MemoryRef> before;
  for (std::uint64_t i = 0; i < 10; ++i)
    before.push_back(step(observe(i, 4)).directive.actions[0].ref);
  SessionTable sessions;
  IndexKeeper keeper(bank_.bank(), bank_.clock(), [] {});
  ASSERT_TRUE(keeper.build());
  StepHandler restarted(bank_.bank(), keeper, payloads_, sessions, {});
  ASSERT_FALSE(restarted.handle(kPeer, observe(9, 4), kFarDeadline));
  ASSERT_TRUE(restarted.open(kPeer, opening("random"), kFarDeadline));
  const auto plan = restarted.handle(kPeer, observe(9, 4), kFarDeadline);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan.value().directive.actions[0].ref, before[9]);
}

TEST_F(StepHandlerTest, DropsAStepOlderThanTheNewest) {
  open(opening());
  step(observe(3, 4));
  expect_error(observe(2, 4), ErrorCode::kConflict);
  step(observe(9, 4));  // steps may be left out: a generator that missed deadlines
}

TEST_F(StepHandlerTest, KnowsNoSessionThatWasNotOpenedByThisPeer) {
  expect_error(observe(0, 4), ErrorCode::kNotFound);
  open(opening());
  const auto other = steps_.handle("generator-2", observe(0, 4), kFarDeadline);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(steps_.close(kPeer, {.session = 5, .last = {}}));
  expect_error(observe(0, 4), ErrorCode::kNotFound);
  EXPECT_TRUE(steps_.close(kPeer, {.session = 5, .last = {}}));  // a retried close
  EXPECT_FALSE(steps_.close(kPeer, {.session = 6, .last = {}}));
}

TEST_F(StepHandlerTest, OpensTheSameSessionOnceAndRefusesAStolenNumber) {
  open(opening());
  step(observe(4, 4));
  open(opening());
  expect_error(observe(3, 4), ErrorCode::kConflict);  // it is still the old one
  auto stolen = opening();
  stolen.incarnation = 10;
  const auto refused = steps_.open("generator-2", stolen, kFarDeadline);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
}

TEST_F(StepHandlerTest, RefusesMoreSessionsThanItsLimit) {
  for (std::uint64_t i = 1; i <= 4; ++i) open(opening("base", i));
  const auto refused = steps_.open(kPeer, opening("base", 5), kFarDeadline);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
}

TEST_F(StepHandlerTest, RefusesObservationsThatDoNotFitTheSession) {
  open(opening());
  auto narrow = observe(0, 4);
  narrow.chunks[0].mean.pop_back();
  expect_error(narrow, ErrorCode::kMismatch);
  auto slot = observe(0, 4);
  slot.active[0].slot = 1;
  expect_error(slot, ErrorCode::kInvalidArgument);
  auto resident = observe(0, 4);
  resident.residents.added = {{4, ref("m4")}};
  expect_error(resident, ErrorCode::kInvalidArgument);
  EXPECT_EQ(step(observe(0, 4)).directive.actions[0].ref, ref("m4"));  // nothing was left behind
}

TEST_F(StepHandlerTest, OffersOnlyNamespacesOfTheSession) {
  keeper_.changed(publish("secret", 40, "private").ref);
  open(opening());
  EXPECT_NE(step(observe(0, 40)).directive.actions[0].ref.id, "secret");
  auto allowed = opening("nearest:0.2", 6);
  allowed.namespaces = {"default", "private"};
  open(allowed);
  auto observation = observe(0, 40);
  observation.session = 6;
  EXPECT_EQ(step(observation).directive.actions[0].ref, ref("secret", 1, "private"));
  auto blind = opening("random", 7);
  blind.namespaces = {};
  open(blind);
  observation.session = 7;
  EXPECT_EQ(step(observation).directive.candidates, 1u);
}

TEST_F(StepHandlerTest, OffersOnlyMemoriesOfTheSessionsModelAndLayer) {
  keeper_.changed(
      publish("other-model", 41, "default", slot_signature(MemoryKind::kLora, "other")).ref);
  keeper_.changed(
      publish("other-layer", 41, "default", slot_signature(MemoryKind::kLora, "a model", 9)).ref);
  open(opening("random"));
  EXPECT_EQ(step(observe(0, 41)).directive.candidates, 9u);
}

TEST_F(StepHandlerTest, NeverSwapsInAStatefulKindUnlessItIsNamed) {
  keeper_.changed(publish("state", 42, "default", slot_signature(MemoryKind::kDelta)).ref);
  open(opening());
  EXPECT_NE(step(observe(0, 42)).directive.actions[0].ref.id, "state");
  open(opening("fixed:default/state", 6));
  auto observation = observe(0, 42);
  observation.session = 6;
  EXPECT_EQ(step(observation).directive.actions[0].ref, ref("state"));
}

TEST_F(StepHandlerTest, HoldsAFixedPolicyToItsMemoryAndVersion) {
  keeper_.changed(publish("m3", 3).ref);
  open(opening("fixed:m3@1"));
  const auto plan = step(observe(0, 6));
  EXPECT_EQ(plan.directive.actions[0].ref, ref("m3", 1));
  EXPECT_EQ(plan.directive.actions[0].part, 0);
  EXPECT_EQ(step(observe(1, 6, ref("m3", 1))).directive.actions[0].action, ActionKind::kKeep);
}

TEST_F(StepHandlerTest, RefusesToOpenWithAPolicyThatCannotBe) {
  const auto code = [&](const std::string& policy) {
    const auto opened = steps_.open(kPeer, opening(policy), kFarDeadline);
    return opened ? ErrorCode{} : opened.error().code;
  };
  EXPECT_EQ(code("best"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code("fixed:default/absent"), ErrorCode::kNotFound);
  publish("secret", 40, "private");
  EXPECT_EQ(code("fixed:private/secret"), ErrorCode::kNotFound);
  publish("foreign", 40, "default", slot_signature(MemoryKind::kLora, "other"));
  EXPECT_EQ(code("fixed:foreign"), ErrorCode::kMismatch);
  EXPECT_EQ(sessions_.size(), 0u);
}

TEST_F(StepHandlerTest, DrawsCandidatesBeforeTheFirstSummary) {
  open(opening("random"));
  const auto plan = step(observe(0));
  EXPECT_EQ(plan.directive.candidates, 9u);
  EXPECT_LT(plan.directive.log_prob, 0.0f);
}

TEST_F(StepHandlerTest, BoundsTheNumberOfCandidates) {
  StepHandler few(bank_.bank(), keeper_, payloads_, sessions_, {.candidates = 4});
  ASSERT_TRUE(few.open(kPeer, opening("random"), kFarDeadline));
  EXPECT_EQ(few.handle(kPeer, observe(0), kFarDeadline).value().directive.candidates, 4u);
  EXPECT_EQ(few.handle(kPeer, observe(1, 3, ref("m7")), kFarDeadline).value().directive.candidates,
            4u);
}

TEST_F(StepHandlerTest, LooksAtTheNewestTokensOfTheWindow) {
  open(opening());
  auto half = observe(0, 1);
  half.chunks[0].tokens = 16;
  step(half);
  half.step = 1;
  half.chunks[0].mean = centre_of(2);
  step(half);
  half.step = 2;
  EXPECT_EQ(step(half).directive.actions[0].ref, ref("m2"));  // m1 has left the 32 tokens
}

TEST_F(StepHandlerTest, AWholeWindowTakesThePlaceOfWhatWasKnown) {
  open(opening());
  step(observe(0, 1));
  auto part = observe(1, 2);
  part.chunks[0].tokens = 8;
  EXPECT_EQ(step(part).directive.actions[0].ref, ref("m1")) << "24 of the 32 tokens are about it";
  part.step = 2;
  part.whole_window = true;
  EXPECT_EQ(step(part).directive.actions[0].ref, ref("m2")) << "there is nothing else any more";
}

TEST_F(StepHandlerTest, CountsWhatWasActiveNotWhatWasAdvised) {
  open(opening());
  auto observation = observe(0, 4, ref("m2"));
  observation.gain = 0.5f;
  step(observation);
  const auto used = bank_.bank().statistics(ref("m2"), kFarDeadline).value();
  EXPECT_EQ(used.uses, 1u);
  EXPECT_DOUBLE_EQ(used.mean_net_gain, 0.5);
  EXPECT_EQ(bank_.bank().statistics(ref("m4"), kFarDeadline).value().uses, 0u);
  observation.step = 1;
  observation.sampled = true;  // a gain on sampled text says nothing
  step(observation);
  EXPECT_EQ(bank_.bank().statistics(ref("m2"), kFarDeadline).value().gains, 1u);
}

TEST_F(StepHandlerTest, KeepsWhatIsActiveWhenThePayloadCannotBeRead) {
  open(opening());
  ASSERT_TRUE(bank_.bank().erase(ref("m4"), kFarDeadline));  // the index does not know yet
  const auto plan = step(observe(0, 4));
  EXPECT_EQ(plan.directive.actions[0].action, ActionKind::kKeep);
  EXPECT_TRUE(plan.parts.empty());
  EXPECT_EQ(steps_.counters().payload_failed, 1u);
}

TEST_F(StepHandlerTest, FetchesByNameWhatTheSessionMaySee) {
  open(opening());
  const auto head = steps_.fetch(kPeer, {.session = 5, .ref = ref("m2", 0)}, kFarDeadline);
  ASSERT_TRUE(head);
  EXPECT_EQ(head.value().reply.version.ref, ref("m2"));
  EXPECT_EQ(sha256(*head.value().payload), head.value().reply.version.sha256);
  const auto code = [&](const MemoryRef& wanted) {
    const auto got = steps_.fetch(kPeer, {.session = 5, .ref = wanted}, kFarDeadline);
    return got ? ErrorCode{} : got.error().code;
  };
  publish("secret", 40, "private");
  publish("foreign", 40, "default", slot_signature(MemoryKind::kLora, "other"));
  EXPECT_EQ(code(ref("secret", 0, "private")), ErrorCode::kNotFound);
  EXPECT_EQ(code(ref("m2", 7)), ErrorCode::kNotFound);
  EXPECT_EQ(code(ref("foreign", 0)), ErrorCode::kMismatch);
}

TEST(PayloadCacheTest, KeepsTheNewestWithinItsBytes) {
  TestBank bank;
  std::vector<MemoryVersion> versions;
  for (int i = 0; i < 4; ++i)
    versions.push_back(bank.publish({.id = numbered(static_cast<unsigned>(i))}));
  PayloadCache cache(bank.bank(), versions[0].payload_bytes * 2);
  for (const auto& version : versions) ASSERT_TRUE(cache.get(version, kFarDeadline));
  EXPECT_EQ(cache.bytes(), versions[0].payload_bytes * 2);
  ASSERT_TRUE(cache.get(versions[2], kFarDeadline));
  ASSERT_TRUE(cache.get(versions[0], kFarDeadline));  // m3 is the older one now
  ASSERT_TRUE(cache.get(versions[2], kFarDeadline));
  EXPECT_EQ(cache.hits(), 2u);
  EXPECT_EQ(cache.misses(), 5u);
  cache.forget(versions[2].ref);
  EXPECT_EQ(cache.bytes(), versions[0].payload_bytes);
}

}  // namespace
}  // namespace memslot
