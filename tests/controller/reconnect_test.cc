// Peers that come back over another connection, peers that say they are another, and a controller
// that stood still meanwhile.
#include <atomic>
#include <future>
#include <map>
#include <mutex>

#include "tests/controller/link_peers.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

using std::chrono::seconds;

// Proves for the peer "NAME.anything" the key of NAME, as a CURVE link would.
class NamedChannel : public Channel {
 public:
  explicit NamedChannel(std::unique_ptr<Channel> inner) : inner_(std::move(inner)) {}
  Status send(Packet packet) override { return inner_->send(std::move(packet)); }
  Result<Packet> receive(TimePoint deadline) override {
    auto packet = inner_->receive(deadline);
    if (!packet) return packet;
    const std::lock_guard lock(mutex_);
    const std::string name = packet.value().peer.substr(0, packet.value().peer.find('.'));
    packet.value().user = key_of(taken_.contains(name) ? taken_.at(name) : name);
    return packet;
  }
  void wake() override { inner_->wake(); }
  void close() override { inner_->close(); }
  std::string endpoint() const override { return inner_->endpoint(); }
  ChannelStats stats() const override { return inner_->stats(); }

  // From now on whoever comes as `name` is `other`: it took the identity over.
  void take(const std::string& name, const std::string& other) {
    const std::lock_guard lock(mutex_);
    taken_[name] = other;
  }
  static std::string key_of(std::string name) {
    name.resize(40, '0');  // of Z85
    return name;
  }

 private:
  std::unique_ptr<Channel> inner_;
  std::mutex mutex_;
  std::map<std::string, std::string> taken_;
};

// Jumps when told. What waits for a moment of it waits too long then, but for packets.
class JumpingClock final : public Clock {
 public:
  TimePoint now() const override { return real_.now() + Duration(jumped_.load()); }
  std::int64_t unix_ms() const override { return real_.unix_ms(); }
  void jump(Duration by) { jumped_ += by.count(); }

 private:
  SystemClock real_;
  std::atomic<std::int64_t> jumped_ = 0;
};

class ReconnectTest : public ServerTest {
 protected:
  void begin(ServerSettings settings = quick_settings()) {
    settings.access =
        AccessList::parse({NamedChannel::key_of("alice") + " client,generator default",
                           NamedChannel::key_of("bob") + " client,generator default"})
            .value();
    network_ = LoopbackNetwork::make();
    auto channel = std::make_unique<NamedChannel>(network_->bind().value());
    named_ = channel.get();
    channel_ = std::move(channel);
    server_.emplace(*channel_, faulty_bank_, documents_, jumping_, std::move(settings));
    ASSERT_TRUE(server_->start());
    thread_ = std::thread([this] { server_->run(); });
  }
  TestPeer& peer(const std::string& identity, wire::Hello hello) {
    peers_.push_back(std::make_unique<TestPeer>(*network_, identity, std::move(hello)));
    peers_.back()->hello();
    return *peers_.back();
  }
  std::size_t versions_of(const std::string& id) {
    return bank_.history({.ns = "default", .id = id}, kFarDeadline).value().size();
  }
  static ServerSettings slow_settings() {
    ServerSettings s = quick_settings();
    s.heartbeat = seconds(10);
    return s;
  }

  JumpingClock jumping_;
  FaultyStore faulty_{store_};
  MemoryBank faulty_bank_{faulty_, clock_};
  NamedChannel* named_ = nullptr;
};

// --- requests ------------------------------------------------------------------------------------

const wire::AdminRequest kRollback{"bank.rollback", R"({"memory":"a","to":1})"};

TEST_F(ReconnectTest, AnAnsweredRequestIsNotDoneAgainForTheSameProcess) {
  publish("a");
  begin();
  TestPeer& before = peer("alice.1", client_hello());
  before.send_as(900, kRollback);
  const auto first = before.expect<wire::AdminReply>();
  TestPeer& after = peer("alice.2", client_hello());
  after.send_as(900, kRollback);
  const auto again = after.expect<wire::AdminReply>();
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->result, again->result);
  EXPECT_EQ(versions_of("a"), 2u);
}

TEST_F(ReconnectTest, ARequestUnderWayIsAnsweredOverTheNewConnection) {
  publish("a");
  begin();
  TestPeer& before = peer("alice.1", client_hello());
  std::promise<void> begun, go;
  const int next = faulty_.calls(FaultyStore::Call::kPublish) + 1;
  faulty_.run_before(FaultyStore::Call::kPublish, next, [&] {
    begun.set_value();
    go.get_future().wait();
  });
  before.send_as(900, kRollback);
  begun.get_future().wait();
  TestPeer& after = peer("alice.2", client_hello());
  after.send_as(900, kRollback);                             // a retry
  EXPECT_TRUE(after.admin("peers.ls").contains("clients"));  // it was read
  go.set_value();
  EXPECT_TRUE(after.expect<wire::AdminReply>());
  EXPECT_EQ(after.request(), 900u);
  EXPECT_EQ(versions_of("a"), 2u);
}

TEST_F(ReconnectTest, AnotherProcessWithTheSameNumbersIsServedAnew) {
  publish("a");
  begin();
  TestPeer& before = peer("alice.1", client_hello(500));
  before.send_as(900, kRollback);
  ASSERT_TRUE(before.expect<wire::AdminReply>());
  TestPeer& restarted = peer("alice.1", client_hello(501));
  restarted.send_as(900, kRollback);
  ASSERT_TRUE(restarted.expect<wire::AdminReply>());
  EXPECT_EQ(versions_of("a"), 3u);
}

TEST_F(ReconnectTest, AnEndedTaskIsToldAgainAndNotBegunAgain) {
  begin();
  TestPeer& g = peer("alice.g", generator_hello());
  TestPeer& c = peer("alice.1", client_hello());
  const wire::SubmitTask task{"status", "{}"};
  c.send_as(900, task);
  const auto assigned = g.expect<wire::AssignTask>();
  ASSERT_TRUE(assigned);
  g.send_as(assigned->task, wire::TaskEvent{assigned->task, R"({"type":"done"})", true, {}});
  EXPECT_EQ(c.event()["type"], "done");
  c.send_as(900, task);
  EXPECT_EQ(c.event()["type"], "done");
  TestPeer& after = peer("alice.2", client_hello());
  after.send_as(900, task);
  EXPECT_EQ(after.event()["type"], "done");
  after.send_as(901, task);
  const auto another = g.expect<wire::AssignTask>();
  ASSERT_TRUE(another);
  EXPECT_EQ(another->task, assigned->task + 1) << "the retries began nothing";
}

TEST_F(ReconnectTest, AMemoryWhoseRemovalFailedIsLeftOutOfTheIndexAllTheSame) {
  publish("a");
  publish("b");
  begin();
  TestPeer& c = peer("alice.1", client_hello());
  faulty_.fail_before(FaultyStore::Call::kCompact, 1, ErrorCode::kIo);
  EXPECT_EQ(c.admin("bank.rm", {{"memory", "a"}})["error"], "io");
  EXPECT_EQ(c.admin("bank.usage")["memories"], 1u);
  EXPECT_TRUE(c.admin("bank.rm", {{"memory", "a"}}).contains("erased"));
  EXPECT_EQ(c.admin("bank.rm", {{"memory", "a"}})["error"], "not_found");
}

// --- rights --------------------------------------------------------------------------------------

TEST_F(ReconnectTest, AnIncarnationThatAnotherKeyClaimsMovesNothingToIt) {
  publish("a");
  begin();
  TestPeer& alice = peer("alice.g", generator_hello(100));
  wire::OpenSession open;
  open.session = 5;
  open.incarnation = 100;
  open.model = slot_signature().model;
  open.slots = generator_hello().slots;
  open.namespaces = {"default"};
  open.policy = "fixed:a";
  alice.send(open);
  ASSERT_TRUE(alice.expect<wire::OpenSessionReply>());
  TestPeer& bob = peer("bob.g", generator_hello(100));
  EXPECT_EQ(peer("bob.c", client_hello()).admin("peers.ls")["generators"].size(), 2u);
  wire::Observation o;
  o.session = 5;
  bob.send(o);
  bob.expect_error(ErrorCode::kNotFound);
  alice.send(o);
  EXPECT_TRUE(alice.expect<wire::Directive>());
}

TEST_F(ReconnectTest, WhoTakesAnIdentityOverIsAStranger) {
  publish("a");
  begin();
  TestPeer& alice = peer("alice.1", client_hello());
  EXPECT_TRUE(alice.admin("bank.show", {{"memory", "a"}}).contains("version"));
  named_->take("alice", "bob");
  EXPECT_EQ(alice.admin("bank.show", {{"memory", "a"}})["error"], "unavailable");
  stop();
  EXPECT_EQ(counters_.strangers, 1u);
  EXPECT_EQ(counters_.peers_lost, 1u);
}

TEST_F(ReconnectTest, AJobDoesNotTellTheIncarnationOfItsClient) {
  begin();
  TestPeer& c = peer("alice.1", client_hello(987654321));
  c.send(wire::SubmitTask{"learn", R"({"text":"words","source":"s","watch":false})"});
  while (c.event().value("type", "") != "job") {
  }
  EXPECT_EQ(c.admin("jobs.ls").dump().find("987654321"), std::string::npos);
}

// --- time ----------------------------------------------------------------------------------------

TEST_F(ReconnectTest, AControllerThatStoodStillLosesNobody) {
  begin(slow_settings());
  peer("alice.g", generator_hello());
  TestPeer& c = peer("alice.1", client_hello());
  jumping_.jump(seconds(300));
  EXPECT_EQ(c.admin("peers.ls")["generators"].size(), 1u);
  jumping_.jump(seconds(1));
  EXPECT_EQ(c.admin("peers.ls")["generators"].size(), 1u);
  stop();
  EXPECT_EQ(counters_.peers_lost, 0u);
}

TEST_F(ReconnectTest, WhoIsSilentWhileTheControllerListensIsLost) {
  begin(slow_settings());
  peer("alice.g", generator_hello());
  TestPeer& c = peer("alice.1", client_hello());
  jumping_.jump(seconds(300));
  const auto generators = [&] { return c.admin("peers.ls")["generators"].size(); };
  // A reply comes before the tick of its turn, so two jumps may count as one: under a heartbeat.
  int jumps = 0;
  while (generators() == 1 && jumps < 30) {
    jumping_.jump(seconds(4));
    ++jumps;
  }
  EXPECT_EQ(generators(), 0u);
  EXPECT_GE(jumps, 10) << "four heartbeats";
  EXPECT_LE(jumps, 14);
}

}  // namespace
}  // namespace memslot
