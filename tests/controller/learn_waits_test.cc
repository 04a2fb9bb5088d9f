// A learn job that nobody could begin: what it waits for is said to those who submitted it, who
// watch it and who ask for it, and again when that changes.
#include "tests/controller/link_peers.h"

namespace memslot {
namespace {

using Json = nlohmann::json;

constexpr const char* kNobody = "no generator is connected";

class LearnWaits : public ServerTest {
 protected:
  static wire::SubmitTask learn(const Json& config = Json::object(), bool watch = true) {
    const Json arguments = {
        {"text", "words"}, {"source", "s"}, {"config", config}, {"watch", watch}};
    return {"learn", arguments.dump()};
  }
  TestPeer& generator_of(wire::Hello hello) {
    const std::string name = "g" + std::to_string(hello.incarnation);
    peers_.push_back(std::make_unique<TestPeer>(*network_, name, std::move(hello)));
    peers_.back()->hello();
    return *peers_.back();
  }
  std::string shown(TestPeer& peer, const std::string& job) {
    return peer.admin("jobs.show", {{"job", job}})["job"].value("waits", "");
  }
};

TEST_F(LearnWaits, AJobSaysThatNoGeneratorIsThereAndNothingOnceOneIs) {
  start();
  TestPeer& c = client();
  c.send(learn());
  const Json accepted = c.event();
  const auto job = accepted["job"].get<std::string>();
  EXPECT_EQ(accepted["waits"], kNobody);
  const Json queued = c.event();
  EXPECT_EQ(queued["phase"], "queued");
  EXPECT_EQ(queued["waits"], kNobody);
  TestPeer& other = client(501);
  EXPECT_EQ(shown(other, job), kNobody);
  EXPECT_EQ(other.admin("jobs.ls")["jobs"][0]["waits"], kNobody);
  ASSERT_TRUE(generator().expect<wire::AssignLearn>());
  EXPECT_FALSE(other.admin("jobs.show", {{"job", job}})["job"].contains("waits"));
}

TEST_F(LearnWaits, AWatcherHearsThatTheGeneratorWhichCameReadsNoText) {
  start();
  TestPeer& c = client();
  c.send(learn());
  const auto job = c.event()["job"].get<std::string>();
  EXPECT_EQ(c.event()["waits"], kNobody);
  TestPeer& mute = generator(100, /*workers=*/0);
  const Json told = c.event();
  EXPECT_EQ(told["type"], "progress");
  EXPECT_EQ(told["phase"], "queued");
  const std::string reason =
      "none of the 1 connected generators reads text (its model brings no tokenizer)";
  EXPECT_EQ(told["waits"], reason);
  EXPECT_EQ(shown(c, job), reason);
  EXPECT_FALSE(mute.next(std::chrono::milliseconds(150))) << "and is not asked to learn it";
  TestPeer& able = generator(101);
  EXPECT_EQ(able.expect<wire::AssignLearn>()->job, job);
}

TEST_F(LearnWaits, AJobForASlotThatNobodyHasIsNotGivenToThoseWhoWouldFailIt) {
  start();
  TestPeer& c = client();
  c.send(learn({{"layer", 9}}));
  const auto job = c.event()["job"].get<std::string>();
  EXPECT_EQ(c.event()["waits"], kNobody);
  TestPeer& low = generator(100);  // its slot is at layer 3
  const std::string reason = "none of the 1 connected generators has a slot at layer 9 (found 3)";
  EXPECT_EQ(c.event()["waits"], reason);
  EXPECT_EQ(shown(c, job), reason);
  EXPECT_FALSE(low.next(std::chrono::milliseconds(150)));
  wire::Hello high = generator_hello(101);
  high.slots[0].layer = 9;
  EXPECT_EQ(generator_of(high).expect<wire::AssignLearn>()->job, job);
}

TEST_F(LearnWaits, AJobForASlotThatNobodyHasIsRefusedWhereGeneratorsAreThere) {
  start();
  generator();
  TestPeer& c = client();
  c.send(learn({{"layer", 9}}));
  const Json refused = c.event();
  EXPECT_EQ(refused.value("error", ""), "not_found");
  EXPECT_EQ(refused.value("message", ""),
            "slot: expected a connected generator with one at layer 9, found 3");
  EXPECT_EQ(c.admin("jobs.ls")["jobs"].size(), 0u);
  c.send(learn({{"layer", 3}}));
  EXPECT_EQ(c.event()["type"], "job");
}

TEST_F(LearnWaits, AWatcherHearsWhenTheLastWhoCouldHasGone) {
  ServerSettings settings = quick_settings();
  settings.heartbeat = std::chrono::milliseconds(50);
  start(settings);
  TestPeer& g = generator();
  TestPeer& c = client();
  c.send(learn());
  ASSERT_TRUE(g.expect<wire::AssignLearn>());
  c.event();
  std::string waits;
  for (int i = 0; i < 40 && waits.empty(); ++i) {  // g says nothing more and is lost
    c.beat();
    const auto message = c.next(std::chrono::milliseconds(25));
    const auto* event = message ? std::get_if<wire::TaskEvent>(&message->body) : nullptr;
    if (event != nullptr) waits = Json::parse(event->event).value("waits", "");
  }
  EXPECT_EQ(waits, kNobody);
}

TEST_F(LearnWaits, WhoDoesNotWatchIsToldWithTheJobsName) {
  start();
  TestPeer& c = client();
  c.send(learn(Json::object(), /*watch=*/false));
  bool final = false;
  const Json accepted = c.event(&final);
  EXPECT_TRUE(final);
  EXPECT_EQ(accepted["waits"], kNobody);
}

TEST_F(LearnWaits, AGeneratorWithoutASlotLearnsNothing) {
  start();
  TestPeer& c = client();
  c.send(learn());
  c.event();
  EXPECT_EQ(c.event()["waits"], kNobody);
  wire::Hello bare = generator_hello(100);
  bare.slots.clear();
  TestPeer& g = generator_of(bare);
  EXPECT_EQ(c.event()["waits"], "none of the 1 connected generators has a slot");
  EXPECT_FALSE(g.next(std::chrono::milliseconds(150)));
}

}  // namespace
}  // namespace memslot
