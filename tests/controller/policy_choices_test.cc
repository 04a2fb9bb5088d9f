// What another policy had chosen, against traces made by hand.
#include "controller/replay/policy_choices.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "rl/whitened_keys.h"
#include "storage/document_bank.h"
#include "tests/controller/learned.h"

namespace memslot {
namespace {

MemoryRef named(const std::string& id) { return {.ns = "default", .id = id, .version = 1}; }
const MemoryRef kBase{"", "", 0};

// A choice made by a function of the test.
class AnyPolicy final : public SelectionPolicy {
 public:
  using Choose = std::function<std::size_t(const StepContext&, std::span<const Candidate>)>;
  explicit AnyPolicy(Choose choose) : choose_(std::move(choose)) {}
  std::string_view name() const override { return "any"; }
  std::string_view digest() const override { return ""; }
  Choice choose(const StepContext& step, std::span<const Candidate> candidates) const override {
    Choice out;
    out.index = choose_(step, candidates);
    return out;
  }

 private:
  Choose choose_;
};

AskedPolicy rule(const std::string& spec) { return {spec, make_policy(spec).value(), nullptr}; }
AskedPolicy any(AnyPolicy::Choose choose) {
  return {"any", std::make_shared<AnyPolicy>(std::move(choose)), nullptr};
}

trace::Candidate listed(const MemoryRef& memory, float best_key = 0) {
  trace::Candidate out;
  out.ref = memory;
  out.best_key = best_key;
  out.mean_key = best_key;
  return out;
}

struct PolicyChoicesTest : testing::Test {
  TestBank bank;
  trace::Trace trace;

  PolicyChoicesTest() {
    trace.start.session = 7;
    trace.start.policy = "nearest";
    trace.start.build = R"({"model":")" + slot_signature().model.hex() + R"(","layers":[3]})";
    trace.start.opening = {{kBase, {}}};
  }

  // A step with what was active in its one slot.
  trace::Step& add_step(const MemoryRef& active, std::optional<std::uint64_t> advised,
                        wire::ActiveReason reason = wire::ActiveReason::kDirective) {
    trace::Step step;
    step.step = trace.steps.size();
    step.active = {{0, {active, {}}, reason}};
    step.tokens = {1, 2};
    step.log_probs = {-1, -2};
    step.advised_step = advised;
    return trace.steps.emplace_back(std::move(step));
  }
  trace::Decision& add_decision(std::uint64_t step, std::vector<trace::Candidate> candidates,
                                std::uint32_t chosen) {
    trace::Decision out;
    out.step = step;
    out.policy = trace.start.policy;
    out.query = {1, 0};
    out.candidates = std::move(candidates);
    out.chosen = chosen;
    return trace.decisions.emplace_back(std::move(out));
  }
  // A step of a synchronous session that follows its decision.
  void add(std::vector<trace::Candidate> candidates, std::uint32_t chosen) {
    const std::uint64_t at = trace.steps.size();
    const MemoryRef active = candidates[chosen].ref;
    add_decision(at, std::move(candidates), chosen);
    add_step(active, at);
  }
  PolicyChoices choices(const AskedPolicy& policy) {
    auto found = choices_of(policy, trace, bank.bank(), SystemClock(), kFarDeadline);
    if (found) return std::move(found).value();
    ADD_FAILURE() << found.error().message;
    return {};
  }
  ErrorCode refused(const AskedPolicy& policy) {
    const auto found = choices_of(policy, trace, bank.bank(), SystemClock(), kFarDeadline);
    return found ? ErrorCode{} : found.error().code;
  }
  // "step:memory" of every change.
  std::vector<std::string> changes(const AskedPolicy& policy) {
    std::vector<std::string> out;
    for (const auto& change : choices(policy).changes) {
      EXPECT_EQ(change.slot, 0u);
      out.push_back(std::to_string(change.step) + ":" + change.memory.id);
    }
    return out;
  }
};

using Changes = std::vector<std::string>;

TEST_F(PolicyChoicesTest, ARuleIsAskedWithTheRecordedSimilarities) {
  const auto at = [](float a, float b) {
    return std::vector{listed(kBase), listed(named("a"), a), listed(named("b"), b)};
  };
  add(at(0.9f, 0.1f), 1);
  add(at(0.6f, 0.7f), 2);
  add(at(0.3f, 0.2f), 0);
  add(at(0.5f, 0.4f), 1);
  EXPECT_EQ(changes(rule("nearest:0.8")), (Changes{"1:", "3:"}));
  EXPECT_EQ(changes(rule("nearest:0.1")), (Changes{"2:a"}));
  EXPECT_EQ(changes(rule("base")), (Changes{"0:", "1:", "3:"}));
  EXPECT_EQ(changes(rule("fixed:b@1")), (Changes{"0:b", "2:b", "3:b"}));
  const PolicyChoices same = choices(rule("nearest:0.45"));
  EXPECT_EQ(same.decisions, 4u);
  EXPECT_EQ(same.otherwise, 0u);
  EXPECT_TRUE(same.changes.empty());
  EXPECT_TRUE(same.notes.empty());
  EXPECT_EQ(choices(rule("nearest:0.8")).otherwise, 2u);
}

TEST_F(PolicyChoicesTest, WhatFollowsFromItsOwnChoicesIsItsOwn) {
  const std::vector all = {listed(kBase), listed(named("a")), listed(named("b"))};
  for (int i = 0; i < 5; ++i) add(all, 1);  // recorded: always a
  for (trace::Decision& d : trace.decisions) {
    d.seed = 11;
    d.explore = d.step == 3;
    d.entropy = static_cast<float>(d.step);
    d.steps_since_swap = 99;
    d.candidates[1].resident = d.step > 0;
    d.candidates[1].current = d.step > 0;
  }
  const std::size_t chosen[] = {2, 2, 0, 0, 1};
  struct Seen {
    std::uint32_t since;
    std::string current;
    bool b_resident, a_resident;
  };
  std::vector<Seen> seen;
  const auto policy = any([&](const StepContext& step, std::span<const Candidate> candidates) {
    EXPECT_EQ(step.session, 7u);
    EXPECT_EQ(step.seed, 11u);
    EXPECT_EQ(step.step, seen.size());
    EXPECT_EQ(step.explore, step.step == 3);
    EXPECT_EQ(step.entropy, static_cast<float>(step.step));
    std::string current;
    for (const Candidate& c : candidates) {
      if (c.is_current) current += c.is_base ? "base" : c.ref.id;
    }
    seen.push_back(
        {step.steps_since_swap, current, candidates[2].resident, candidates[1].resident});
    return chosen[step.step];
  });
  EXPECT_EQ(changes(policy), (Changes{"0:b", "1:b", "2:", "3:"}));
  ASSERT_EQ(seen.size(), 5u);
  const Seen expected[] = {{1, "base", false, false},
                           {1, "b", true, true},
                           {2, "b", true, true},
                           {1, "base", true, true},
                           {2, "base", true, true}};
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].since, expected[i].since) << i;
    EXPECT_EQ(seen[i].current, expected[i].current) << i;
    EXPECT_EQ(seen[i].b_resident, expected[i].b_resident) << i;
    EXPECT_EQ(seen[i].a_resident, expected[i].a_resident) << i;
  }
}

// In async a choice counts a step later; too late or not loaded, what is active stays.
TEST_F(PolicyChoicesTest, ChoicesTakeTheCourseOfTheRecordedOnes) {
  const std::vector all = {listed(kBase), listed(named("a")), listed(named("b"))};
  using enum wire::ActiveReason;
  add_step(kBase, std::nullopt, kOpening);
  add_step(named("a"), 0, kLate);
  add_step(named("a"), std::nullopt, kMissedDeadline);
  add_step(kBase, 2, kLate);
  add_step(kBase, 3, kLoadFailed);
  add_step(named("b"), 4, kPinned);
  for (const std::uint32_t chosen : {1u, 1u, 0u, 2u, 2u, 2u}) {
    add_decision(trace.decisions.size(), all, chosen);
  }
  const auto always = [&](std::size_t index) {
    return any([index](const StepContext&, std::span<const Candidate>) { return index; });
  };
  EXPECT_EQ(changes(always(0)), (Changes{"1:", "2:"}));
  EXPECT_EQ(changes(always(1)), (Changes{"3:a", "4:a"}));
  EXPECT_EQ(changes(always(2)), (Changes{"1:b", "2:b", "3:b", "4:b"}));
  // The recorded choices again, also where one did not load.
  EXPECT_EQ(changes(any([&](const StepContext& step, std::span<const Candidate>) {
              return std::size_t{trace.decisions[step.step].chosen};
            })),
            (Changes{}));
  // b did not load where it was chosen: what this policy had made active stays.
  EXPECT_EQ(changes(any([&](const StepContext& step, std::span<const Candidate>) {
              return step.step < 3 ? std::size_t{1} : std::size_t{2};
            })),
            (Changes{"3:a", "4:a"}));
}

// In async, a choice without a payload brings back what its observation reported.
TEST_F(PolicyChoicesTest, WhatAFailedChoiceBroughtBackIsNoChange) {
  const std::vector all = {listed(kBase), listed(named("a")), listed(named("b"))};
  using enum wire::ActiveReason;
  add_step(kBase, std::nullopt, kOpening);
  add_step(named("a"), 0, kLate);
  add_step(kBase, 1, kLate);  // b was chosen while base was active
  for (const std::uint32_t chosen : {1u, 2u, 0u}) {
    add_decision(trace.decisions.size(), all, chosen);
  }
  EXPECT_EQ(changes(any([&](const StepContext& step, std::span<const Candidate>) {
              return std::size_t{trace.decisions[step.step].chosen};
            })),
            (Changes{}));
}

TEST_F(PolicyChoicesTest, WhatCannotBeAskedIsRefused) {
  const std::vector all = {listed(kBase), listed(named("a"), 0.5f)};
  add(all, 1);
  add(all, 1);
  const trace::Trace good = trace;
  EXPECT_EQ(refused(rule("base")), ErrorCode{});
  EXPECT_EQ(refused(rule("fixed:elsewhere")), ErrorCode::kNotFound);
  EXPECT_EQ(refused(rule("fixed:a@2")), ErrorCode::kNotFound);
  trace.start.policy = "";
  EXPECT_EQ(refused(rule("base")), ErrorCode::kMismatch);
  trace = good;
  trace.decisions[1].features = false;
  EXPECT_EQ(refused(rule("base")), ErrorCode::kMismatch);
  trace = good;
  trace.decisions.pop_back();
  EXPECT_EQ(refused(rule("base")), ErrorCode::kNotFound);
  trace = good;
  for (const char* build :
       {"", "[]", "{}", R"({"model":1,"layers":[3]})", R"({"model":"","layers":[]})",
        R"({"model":"","layers":["x"]})", R"({"model":"","layers":[3,4]})"}) {
    trace.start.build = build;
    EXPECT_EQ(refused(rule("base")), ErrorCode::kCorruption) << build;
  }
  trace = good;
  trace.decisions[0].candidates = {listed(named("a"))};
  trace.decisions[0].chosen = 0;
  EXPECT_EQ(refused(rule("base")), ErrorCode::kCorruption);
  trace = good;
  trace.decisions[0].slot = 1;
  EXPECT_EQ(refused(rule("base")), ErrorCode::kCorruption);
  trace = good;
  trace.steps[1].active[0].slot = 1;
  EXPECT_EQ(refused(rule("base")), ErrorCode::kCorruption);
}

TEST_F(PolicyChoicesTest, SaysWhereSomethingWasNoCandidate) {
  add({listed(kBase), listed(named("a"), 0.5f), listed(named("b"), 0.2f)}, 0);
  add({listed(kBase), listed(named("a"), 0.5f)}, 0);
  const PolicyChoices found = choices(rule("fixed:b"));
  ASSERT_EQ(found.changes.size(), 1u);
  EXPECT_EQ(found.changes[0].step, 0u);
  ASSERT_EQ(found.notes.size(), 2u);
  EXPECT_NE(found.notes[0].find("made active was not among the candidates"), std::string::npos);
  EXPECT_NE(found.notes[1].find("base instead"), std::string::npos);
}

// --- learned ones --------------------------------------------------------------------------------

struct LearnedChoicesTest : PolicyChoicesTest {
  DocumentBank documents{bank.store(), bank.clock()};
  PolicyShelf shelf{documents, bank.clock(), cosine_engine()};

  LearnedChoicesTest() {
    std::mt19937 rng(5);
    for (unsigned i = 0; i < 3; ++i) {
      bank.publish({.id = numbered(i), .keys = keys_around(centre_of(i), 4, 0.2f, rng)});
    }
  }
  AskedPolicy asked(const Checkpoint& checkpoint) {
    return policy_of_checkpoint(checkpoint.bytes(), cosine_engine()).value();
  }
  std::vector<float> mean_of(unsigned memory, const Whitening& whitening) {
    const auto version = bank.bank().version(named(numbered(memory)), kFarDeadline).value();
    return whiten_keys(whitening, bank.bank().load_keys(version, kFarDeadline).value().values).mean;
  }
  // Three steps near to memories 0, 1 and 2, as a rule recorded them that always took memory 0.
  void record(const Whitening& whitening) {
    for (unsigned near = 0; near < 3; ++near) {
      const std::vector<float> query = mean_of(near, whitening);
      std::vector<trace::Candidate> candidates = {listed(kBase)};
      for (unsigned i = 0; i < 3; ++i) {
        const std::vector<float> mean = mean_of(i, whitening);
        double product = 0;
        for (std::size_t k = 0; k < mean.size(); ++k) product += double{mean[k]} * double{query[k]};
        candidates.push_back(listed(named(numbered(i)), static_cast<float>(product)));
      }
      add(std::move(candidates), 1);
      trace.decisions.back().query = query;
    }
  }
};

TEST_F(LearnedChoicesTest, ACheckpointThatNobodyLoadedIsAskedAndNothingIsPublished) {
  const Checkpoint checkpoint = cosine_checkpoint(1);
  record(checkpoint.whitening);
  const AskedPolicy policy = asked(checkpoint);
  EXPECT_EQ(policy.spec, "learned:" + policy.learned->digest);
  EXPECT_EQ(changes(policy), (Changes{"1:m1", "2:m2"}));  // the nearest mean
  EXPECT_EQ(choices(policy).otherwise, 2u);
  Changes farthest;  // base where none is on the other side
  for (const trace::Decision& d : trace.decisions) {
    std::size_t at = 0;
    for (std::size_t i = 1; i < d.candidates.size(); ++i) {
      if (d.candidates[i].mean_key < d.candidates[at].mean_key) at = i;
    }
    const std::string& id = d.candidates[at].ref.id;
    if (at != d.chosen) farthest.push_back(std::to_string(d.step) + ":" + id);
  }
  EXPECT_EQ(changes(asked(cosine_checkpoint(-1))), farthest);
  ASSERT_TRUE(shelf.load(kFarDeadline));
  EXPECT_EQ(shelf.head(), nullptr);
  EXPECT_TRUE(shelf.list(kFarDeadline).value().empty());
}

TEST_F(LearnedChoicesTest, ItsSwapCostIsItsOwnAndARulesLongerWindowIsTheShorter) {
  Checkpoint checkpoint = cosine_checkpoint(1);
  checkpoint.task.swap_cost = 0.25f;
  record(checkpoint.whitening);
  AskedPolicy policy = asked(checkpoint);
  std::size_t asked_times = 0;
  const auto look = [&](const StepContext& step, std::span<const Candidate> candidates) {
    ++asked_times;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& c = candidates[i];
      EXPECT_EQ(c.swap_cost, c.is_current ? 0.0f : 0.25f);
      EXPECT_EQ(c.long_key, c.best_key);
      EXPECT_EQ(c.best_key, trace.decisions[step.step].candidates[i].best_key);
      EXPECT_TRUE(c.is_base || c.kind == MemoryKind::kLora);
    }
    return std::size_t{1};
  };
  policy.policy = std::make_shared<AnyPolicy>(look);
  const PolicyChoices found = choices(policy);
  EXPECT_EQ(asked_times, 3u);
  ASSERT_EQ(found.notes.size(), 1u);
  EXPECT_NE(found.notes[0].find("longer window"), std::string::npos);

  // A learned one recorded it.
  trace.start.policy = policy.spec;
  for (trace::Decision& d : trace.decisions) {
    d.policy = policy.spec;
    for (trace::Candidate& c : d.candidates) c.long_key = -0.5f;
  }
  policy.policy = std::make_shared<AnyPolicy>([](const StepContext&, auto candidates) {
    for (const Candidate& c : candidates) EXPECT_EQ(c.long_key, -0.5f);
    return std::size_t{1};
  });
  EXPECT_TRUE(choices(policy).notes.empty());
}

TEST_F(LearnedChoicesTest, BeforeTheFirstQueryItHasBaseAndWhatIsActive) {
  const Checkpoint checkpoint = cosine_checkpoint(1);
  record(checkpoint.whitening);
  trace.decisions[0].query.clear();  // the rule drew some
  AskedPolicy policy = asked(checkpoint);
  std::vector<std::size_t> counts;
  policy.policy = std::make_shared<AnyPolicy>([&](const StepContext&, auto candidates) {
    counts.push_back(candidates.size());
    return std::size_t{0};
  });
  choices(policy);
  EXPECT_EQ(counts, (std::vector<std::size_t>{1, 4, 4}));
}

TEST_F(LearnedChoicesTest, OneForAnotherModelLayerOrWhiteningIsRefused) {
  Checkpoint checkpoint = cosine_checkpoint(1);
  record(checkpoint.whitening);
  EXPECT_EQ(refused(asked(checkpoint)), ErrorCode{});
  EXPECT_EQ(refused(asked(cosine_checkpoint(1, /*seed=*/2))), ErrorCode::kMismatch);
  checkpoint.task.layer = 4;
  EXPECT_EQ(refused(asked(checkpoint)), ErrorCode::kMismatch);
  checkpoint = cosine_checkpoint(1);
  checkpoint.task.model = std::string(64, 'a');
  EXPECT_EQ(refused(asked(checkpoint)), ErrorCode::kMismatch);
  checkpoint = cosine_checkpoint(1);
  checkpoint.feature_version += 1;
  EXPECT_EQ(policy_of_checkpoint(checkpoint.bytes(), cosine_engine()).error().code,
            ErrorCode::kMismatch);
}

TEST_F(LearnedChoicesTest, ACandidateThatIsGoneIsSaid) {
  const Checkpoint checkpoint = cosine_checkpoint(1);
  record(checkpoint.whitening);
  ASSERT_TRUE(bank.bank().erase(named("m2"), kFarDeadline));
  const auto found = choices_of(asked(checkpoint), trace, bank.bank(), SystemClock(), kFarDeadline);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
  EXPECT_NE(found.error().message.find("gone since the trace was recorded"), std::string::npos);
}

// With several slots it acts in that of the lowest layer, as it does live.
TEST_F(LearnedChoicesTest, ItActsInTheLowestSlotOnly) {
  const Checkpoint checkpoint = cosine_checkpoint(1);
  record(checkpoint.whitening);
  trace.start.build = R"({"model":")" + slot_signature().model.hex() + R"(","layers":[5,3]})";
  trace.start.opening = {{kBase, {}}, {kBase, {}}};
  std::vector<trace::Decision> decisions;
  for (trace::Decision& d : trace.decisions) {
    trace::Decision higher = d;
    d.slot = 1;
    higher.slot = 0;
    decisions.push_back(higher);
    decisions.push_back(d);
  }
  trace.decisions = decisions;
  for (trace::Step& step : trace.steps) {
    step.active.push_back(step.active[0]);
    step.active[1].slot = 1;
  }
  const PolicyChoices found = choices(asked(checkpoint));
  EXPECT_EQ(found.decisions, 3u);
  std::vector<std::string> changed;
  for (const auto& c : found.changes) {
    changed.push_back(std::to_string(c.step) + "/" + std::to_string(c.slot) + ":" + c.memory.id);
  }
  EXPECT_EQ(changed, (Changes{"0/0:", "1/0:", "1/1:m1", "2/0:", "2/1:m2"}));
}

TEST_F(LearnedChoicesTest, TheBanksOnesAreFoundByTheBeginningOfTheirDigest) {
  const auto spec = [&](const std::string& text) -> std::string {
    const auto found = policy_of_spec(text, &shelf, kFarDeadline);
    return found ? found.value().spec : std::string(error_code_name(found.error().code));
  };
  EXPECT_EQ(spec("learned"), "not_found");
  std::vector<std::string> digests;
  for (int i = 1; i <= 20; ++i) {
    const auto made =
        shelf.publish(cosine_checkpoint(static_cast<float>(i)).bytes(), "file", "", kFarDeadline);
    digests.push_back(made.value()->digest);
  }
  EXPECT_EQ(spec("learned"), "learned:" + digests.back());
  EXPECT_EQ(spec("learned:" + digests[3]), "learned:" + digests[3]);
  EXPECT_EQ(spec("learned:" + digests[3].substr(0, 12)), "learned:" + digests[3]);
  // Of 20 digests two begin with the same of 16 digits.
  std::set<char> begun;
  char twice = 0;
  for (const std::string& digest : digests) {
    if (!begun.insert(digest[0]).second) twice = digest[0];
  }
  EXPECT_EQ(spec(std::string("learned:") + twice), "invalid_argument");
  EXPECT_EQ(spec("learned:" + std::string(64, '0')), "not_found");
  EXPECT_EQ(spec("learned:"), "invalid_argument");
  EXPECT_EQ(spec("nearest:0.5"), "nearest:0.5");
  EXPECT_EQ(policy_of_spec("learned", nullptr, kFarDeadline).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace memslot
