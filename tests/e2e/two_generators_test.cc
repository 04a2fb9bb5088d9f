// Two real generators on one controller: both serve, each keeps to its own sessions, what one
// learns the other generates with, and a job outlives the one that had it.
#include <gtest/gtest.h>

#include <set>

#include "tests/e2e/pair.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

const char* kFerry =
    "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
    "captain keeps a brass bell from a drowned church, and rings it once for every passenger.";
const char* kBaker =
    "Perrin bakes eleven loaves of rye each morning and sells ten. The last one hangs in the "
    "window until the magpies have counted it, for bread that nobody counted turns sour.";

struct TwoGeneratorsTest : testing::Test {
  Pair pair;
  Process second = pair.another_generator("second");
  std::unique_ptr<Client> client;
  std::uint64_t first_number = 0, second_number = 0;  // incarnations

  void SetUp() override {
    pair.start();
    client = std::make_unique<Client>(pair.endpoint);
    must(client->wait_connected());
    ASSERT_TRUE(eventually([&] { return generators().size() == 1; }));
    first_number = generators().begin()->first;
    second.start();
    ASSERT_TRUE(eventually([&] { return generators().size() == 2; }));
    for (const auto& [number, generator] : generators()) {
      if (number != first_number) second_number = number;
    }
  }
  void TearDown() override {
    if (!HasFailure()) return;
    std::fprintf(stderr, "--- controller\n%s--- generator\n%s--- second\n%s",
                 pair.controller.log().c_str(), pair.generator.log().c_str(), second.log().c_str());
  }

  template <class Fn>
  bool eventually(Fn fn, std::chrono::seconds limit = 60s) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < end) {
      if (fn()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  // By incarnation, as the controller lists them.
  std::map<std::uint64_t, json> generators() {
    std::map<std::uint64_t, json> out;
    const json listed = must(client->admin("peers.ls", json::object()));
    for (const json& g : listed["generators"]) out[g["incarnation"].get<std::uint64_t>()] = g;
    return out;
  }
  std::uint64_t other(std::uint64_t number) const {
    return number == first_number ? second_number : first_number;
  }
  Process& process(std::uint64_t number) {
    return number == first_number ? pair.generator : second;
  }

  struct Generated {
    std::uint64_t by = 0;
    json last;
  };
  // From a client of its own, so that several may run at once.
  Result<Generated> generate(const json& more) {
    Client own(pair.endpoint);
    MEMSLOT_TRY(own.wait_connected());
    json arguments = {{"prompt", "The ferry to Skerrow leaves at "}, {"max_tokens", 24}};
    arguments.update(more);
    std::vector<json> events;
    Generated out;
    MEMSLOT_TRY(out.last, own.task("generate", arguments, &events));
    out.by = events.at(0)["generator"].get<std::uint64_t>();
    return out;
  }
  // Tasks go to whichever has fewer, so two at a time reach both sooner or later.
  std::vector<Generated> generate_twice(const json& more) {
    Result<Generated> first = Generated();
    std::thread beside([&] { first = generate(more); });
    Result<Generated> here = generate(more);
    beside.join();
    return {must(std::move(first)), must(std::move(here))};
  }
  // What each of the two writes.
  std::map<std::uint64_t, json> generate_on_both(const json& more) {
    std::map<std::uint64_t, json> out;
    const bool both = eventually([&] {
      for (const Generated& one : generate_twice(more)) out[one.by] = one.last;
      return out.size() == 2;
    });
    EXPECT_TRUE(both) << "only one generator serves";
    return out;
  }
  json job(const std::string& id) { return must(client->admin("jobs.show", {{"job", id}}))["job"]; }
  // Accepted, and at work: who has it.
  std::uint64_t begin_learning(const std::string& source, const char* text, int steps,
                               std::string* id) {
    const json accepted = must(client->task("learn", {{"text", text},
                                                      {"source", source},
                                                      {"id", source},
                                                      {"watch", false},
                                                      {"config",
                                                       {{"kind", "lora"},
                                                        {"rank", 8},
                                                        {"max_steps", steps},
                                                        {"target_recall", 1},
                                                        {"lr", 0.002}}}}));
    *id = accepted["job"].get<std::string>();
    std::uint64_t by = 0;
    EXPECT_TRUE(eventually([&] {
      for (const auto& [number, g] : generators()) {
        if (g["learning"].get<int>() > 0) by = number;
      }
      return by != 0;
    })) << "nobody learns";
    return by;
  }
};

TEST_F(TwoGeneratorsTest, OneLearnsWhileTheOtherServesAndGeneratesWithTheResultAfterwards) {
  const json base = must(generate({{"memory", "base"}})).last;
  std::string id;
  const std::uint64_t learner = begin_learning("ferry", kFerry, 150, &id);
  ASSERT_NE(learner, 0u);
  int meanwhile = 0;
  ASSERT_TRUE(eventually([&] {
    const auto served = generate_twice({{"memory", "base"}});
    const bool learning = job(id)["state"] == "leased";
    for (const Generated& one : served) {
      EXPECT_EQ(one.last["logits_xxh3"], base["logits_xxh3"]);
      meanwhile += learning && one.by == other(learner) ? 1 : 0;
    }
    return !learning;
  }));
  EXPECT_GT(meanwhile, 0) << "the other did not serve while the job was at work";
  ASSERT_EQ(job(id)["state"], "done") << job(id);

  const auto with = generate_on_both({{"memory", "ferry"}});
  ASSERT_EQ(with.size(), 2u);
  EXPECT_NE(with.at(other(learner))["logits_xxh3"], base["logits_xxh3"]);
  EXPECT_EQ(with.at(other(learner))["logits_xxh3"], with.at(learner)["logits_xxh3"]);
  EXPECT_EQ(with.at(other(learner))["text"], with.at(learner)["text"]);
  for (const auto& [number, last] : generate_on_both({{"memory", "base"}})) {
    EXPECT_EQ(last["logits_xxh3"], base["logits_xxh3"]) << number;
  }
}

TEST_F(TwoGeneratorsTest, AKilledLearnersJobIsTakenOverByTheOther) {
  std::string id;
  const std::uint64_t learner = begin_learning("ferry", kFerry, 300, &id);
  ASSERT_NE(learner, 0u);
  process(learner).kill(SIGKILL);
  ASSERT_NE(job(id)["state"], "done") << "it was too quick to be killed in mid-job";
  ASSERT_TRUE(eventually([&] { return job(id)["state"] == "done"; }, 120s)) << job(id);
  EXPECT_EQ(job(id)["lease"], 2) << job(id);
  const json history = must(client->admin("bank.history", {{"memory", "ferry"}}));
  ASSERT_EQ(history["versions"].size(), 1u) << "learned once";
  EXPECT_EQ(history["versions"][0]["token"], id + ":2");
  EXPECT_TRUE(must(client->admin("bank.show", {{"memory", "ferry"}}))["branches"].empty());
  EXPECT_EQ(must(generate({{"memory", "ferry"}})).by, other(learner));
  EXPECT_EQ(must(client->task("verify", json::object()))["damaged"], 0);

  process(learner).start();  // under a new incarnation: nothing is left for it
  ASSERT_TRUE(eventually([&] { return generators().size() == 2; }));
  EXPECT_EQ(generate_on_both({{"memory", "ferry"}}).size(), 2u);
  EXPECT_EQ(must(client->admin("bank.history", {{"memory", "ferry"}}))["versions"].size(), 1u);
}

TEST_F(TwoGeneratorsTest, SessionsOfBothAreApart) {
  std::string id;
  for (const auto& [source, text] : {std::pair{"ferry", kFerry}, {"baker", kBaker}}) {
    begin_learning(source, text, 20, &id);
    ASSERT_TRUE(eventually([&] { return job(id)["state"] == "done"; }));
  }
  const json ferry = {{"memory", "ferry"}, {"max_tokens", 400}, {"step_tokens", 1}};
  const json baker = {{"memory", "baker"}, {"max_tokens", 400}, {"step_tokens", 1}};
  const json ferry_alone = must(generate(ferry)).last, baker_alone = must(generate(baker)).last;
  ASSERT_NE(ferry_alone["logits_xxh3"], baker_alone["logits_xxh3"]);

  // Two at once, until they ran on different generators.
  EXPECT_TRUE(eventually([&] {
    Result<Generated> beside = Generated();
    std::thread thread([&] { beside = generate(baker); });
    const Generated one = must(generate(ferry));
    thread.join();
    EXPECT_EQ(one.last["logits_xxh3"], ferry_alone["logits_xxh3"]);
    EXPECT_EQ(must(beside).last["logits_xxh3"], baker_alone["logits_xxh3"]);
    return one.by != beside.value().by;
  }));
  EXPECT_TRUE(
      eventually([&] { return must(client->admin("peers.ls", json::object()))["sessions"] == 0; }));
}

TEST_F(TwoGeneratorsTest, OneThatIsKilledTakesOnlyItsOwnSessionsAlong) {
  // Long enough to be killed in; whoever it is, the other's goes on.
  const json lasting = {
      {"memory", "auto"}, {"max_tokens", 900}, {"step_tokens", 1}, {"deadline_ms", 30'000}};
  std::vector<Result<Generated>> got(2, Result<Generated>(Generated()));
  std::thread one([&] { got[0] = generate(lasting); });
  std::thread two([&] { got[1] = generate(lasting); });
  const bool apart = eventually([&] {
    const auto now = generators();
    return now.at(first_number)["sessions"] == 1 && now.at(second_number)["sessions"] == 1;
  });
  pair.generator.kill(SIGKILL);
  one.join();
  two.join();
  ASSERT_TRUE(apart) << "each was to have one session";
  int served = 0;
  for (const auto& result : got) {
    if (!result) {
      EXPECT_EQ(result.error().code, ErrorCode::kUnavailable) << result.error().message;
      continue;
    }
    ++served;
    EXPECT_EQ(result.value().by, second_number);
    EXPECT_EQ(result.value().last["tokens"].size(), 900u);
    EXPECT_FALSE(result.value().last.contains("missed_deadlines"));
  }
  EXPECT_EQ(served, 1);
  EXPECT_TRUE(eventually([&] {
    const json peers = must(client->admin("peers.ls", json::object()));
    return peers["generators"].size() == 1 && peers["sessions"] == 0;
  }));
}

TEST_F(TwoGeneratorsTest, WriteBacksOfBothOverOneHeadMakeOneVersionAndABranch) {
  must(client->task(
      "learn",
      {{"text", kFerry}, {"source", "state"}, {"id", "state"}, {"config", {{"kind", "delta"}}}}));
  const auto both = generate_on_both({{"memory", "state@1"}, {"write_back", true}});
  ASSERT_EQ(both.size(), 2u);
  std::multiset<bool> conflicts;
  for (const auto& [number, last] : both) {
    ASSERT_TRUE(last.contains("write_back")) << last;
    conflicts.insert(last["write_back_conflict"].get<bool>());
  }
  EXPECT_GE(conflicts.count(true), 1u);
  const json shown = must(client->admin("bank.show", {{"memory", "state"}}));
  EXPECT_EQ(shown["version"]["version"], 2) << "one of all was first";
  EXPECT_GE(shown["branches"].size(), 1u);
  EXPECT_EQ(must(client->task("verify", json::object()))["damaged"], 0);
}

}  // namespace
}  // namespace memslot
