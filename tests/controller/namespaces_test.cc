// What a peer may not see does not exist for it: whatever names a memory, a job or a session of
// another namespace is answered as if there were none, and leaves nothing behind in the bank.
//
// The peers here have keys: "key of NAME" for the peer NAME, as a CURVE link would prove them.
#include "tests/controller/link_peers.h"

namespace memslot {
namespace {

// Says of each packet whose key its sender proved.
class ProvenChannel : public Channel {
 public:
  explicit ProvenChannel(std::unique_ptr<Channel> inner) : inner_(std::move(inner)) {}
  Status send(Packet packet) override { return inner_->send(std::move(packet)); }
  Result<Packet> receive(TimePoint deadline) override {
    auto packet = inner_->receive(deadline);
    if (packet) packet.value().user = key_of(packet.value().peer);
    return packet;
  }
  void wake() override { inner_->wake(); }
  void close() override { inner_->close(); }
  std::string endpoint() const override { return inner_->endpoint(); }
  ChannelStats stats() const override { return inner_->stats(); }

  // 40 characters of Z85.
  static std::string key_of(const std::string& peer) {
    std::string key = peer;
    key.resize(40, '0');
    return key;
  }

 private:
  std::unique_ptr<Channel> inner_;
};

// g1 sees "default"; g2 and the client c see "default" and "private".
class NamespacesTest : public ServerTest {
 protected:
  void SetUp() override {
    secret_ = publish("secret", 1.0f, "private");
    open_ = publish("open", 2.0f, "default");
    network_ = LoopbackNetwork::make();
    channel_ = std::make_unique<ProvenChannel>(network_->bind().value());
    ServerSettings settings = quick_settings();
    settings.access = AccessList::parse({ProvenChannel::key_of("g1") + " generator default",
                                         ProvenChannel::key_of("g2") + " generator default,private",
                                         ProvenChannel::key_of("c") + " client default,private"})
                          .value();
    server_.emplace(*channel_, bank_, documents_, clock_, std::move(settings));
    ASSERT_TRUE(server_->start());
    thread_ = std::thread([this] { server_->run(); });
    before_ = everything();
  }
  MemoryVersion publish(const std::string& id, float value, const std::string& ns) {
    const MemoryPayload payload = small_payload(value);
    MemoryDraft draft;
    draft.meta = version_of(payload, {ns, id, 0});
    draft.meta.token = new_token(clock_);
    draft.payload = payload.bytes();
    draft.source_text = "words";
    return bank_.publish_memory(draft, kFarDeadline).value().version;
  }
  static MemoryVersion version_of(const MemoryPayload& payload, const MemoryRef& ref) {
    MemoryVersion v;
    v.ref = ref;
    v.signature = payload.signature();
    v.dtype = payload.dtype();
    v.source = "a-source";
    v.payload_bytes = payload.bytes().size();
    v.sha256 = sha256(payload.bytes());
    return v;
  }
  static SharedBytes bytes_of_payload(const MemoryPayload& payload) {
    return share_bytes({payload.bytes().begin(), payload.bytes().end()});
  }
  TestPeer& peer(const std::string& name, wire::Hello hello) {
    peers_.push_back(std::make_unique<TestPeer>(*network_, name, std::move(hello)));
    peers_.back()->hello();
    return *peers_.back();
  }
  // A generator that sees "default" only, with a session that asks for both namespaces.
  TestPeer& narrow() {
    TestPeer& g = peer("g1", generator_hello(100, /*workers=*/1));
    g.send(session(5, 100));
    EXPECT_TRUE(g.expect<wire::OpenSessionReply>());
    return g;
  }
  static wire::OpenSession session(std::uint64_t number, std::uint64_t incarnation) {
    wire::OpenSession open;
    open.session = number;
    open.incarnation = incarnation;
    open.model = slot_signature().model;
    open.slots = generator_hello().slots;
    open.namespaces = {"default", "private"};
    open.policy = "random";
    open.explore = true;
    return open;
  }
  wire::WriteBack write_back(const MemoryPayload& payload, const MemoryRef& ref,
                             const std::string& expected) {
    wire::WriteBack write;
    write.session = 5;
    write.expected = expected;
    write.version = version_of(payload, ref);
    write.version.token = "nonce";
    return write;
  }
  // Every memory, branch and statistics record of the bank with its head's token.
  std::map<std::string, std::string> everything() {
    std::map<std::string, std::string> out;
    for (const char* prefix : {"memory/", "branch/", "stats/"}) {
      const auto page = store_.list(prefix, "", 1000, kFarDeadline).value();
      for (const auto& entry : page.entries) out[entry.id] = entry.head.token;
    }
    return out;
  }
  void expect_nothing_stored() {
    ASSERT_TRUE(bank_.flush_statistics(kFarDeadline));
    EXPECT_EQ(everything(), before_);
  }

  MemoryVersion secret_, open_;
  std::map<std::string, std::string> before_;
};

TEST_F(NamespacesTest, AFetchFindsNoMemoryOfAnother) {
  TestPeer& g = narrow();
  for (const std::uint64_t version : {0, 1}) {
    g.send(wire::FetchMemory{5, {"private", "secret", version}});
    g.expect_error(ErrorCode::kNotFound);
  }
  g.send(wire::FetchMemory{5, {"default", "open", 0}});
  EXPECT_TRUE(g.expect<wire::MemoryReply>());
  expect_nothing_stored();
}

TEST_F(NamespacesTest, AFixedPolicyFindsNoMemoryOfAnother) {
  TestPeer& g = peer("g1", generator_hello());
  auto open = session(6, 100);
  open.policy = "fixed:private/secret";
  g.send(open);
  g.expect_error(ErrorCode::kNotFound);
}

TEST_F(NamespacesTest, AWriteBackIntoAnotherIsRefused) {
  TestPeer& g = narrow();
  const MemoryPayload changed = small_payload(9.0f);
  const auto bytes = store_.usage(kFarDeadline).value().payload_bytes;
  // Over the head that is there, as a memory of its own, and over a head that was guessed.
  for (const auto& [id, expected] : {std::pair<std::string, std::string>{"secret", secret_.token},
                                     {"fresh", ""},
                                     {"secret", "guessed"}}) {
    g.send(write_back(changed, {"private", id, 0}, expected), {bytes_of_payload(changed)});
    g.expect_error(ErrorCode::kNotFound);
  }
  // A head of another memory is no parent either.
  g.send(write_back(changed, {"default", "open", 0}, secret_.token), {bytes_of_payload(changed)});
  g.expect_error(ErrorCode::kNotFound);
  expect_nothing_stored();
  EXPECT_EQ(store_.usage(kFarDeadline).value().payload_bytes, bytes);
  g.send(write_back(changed, {"default", "open", 0}, open_.token), {bytes_of_payload(changed)});
  const auto reply = g.expect<wire::WriteBackReply>();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->version.ref.version, 2u);
}

// The resident set is the generator's, with what other sessions of its brought; what is said to be
// active in a namespace out of sight counts nowhere, and is no candidate: the directive leads away.
TEST_F(NamespacesTest, AnObservationOfAnothersMemoryCountsNowhere) {
  TestPeer& g = narrow();
  for (std::uint64_t step = 0; step < 20; ++step) {
    wire::Observation o;
    o.session = 5;
    o.step = step;
    o.tokens = 16;
    o.gain = 1.5f;
    o.active = {{0, {"private", "secret", 1}, wire::ActiveReason::kDirective}};
    o.residents.epoch = 1;
    o.residents.added = {{0, {"private", "secret", 1}}};
    g.send(o);
    const auto directive = g.expect<wire::Directive>();
    ASSERT_TRUE(directive);
    EXPECT_EQ(directive->candidates, 2u) << "base and the one memory in sight";
    EXPECT_NE(directive->actions[0].ref.ns, "private");
    EXPECT_NE(directive->actions[0].action, wire::ActionKind::kKeep);
  }
  expect_nothing_stored();
  const auto uses = bank_.statistics({"private", "secret", 0}, kFarDeadline);
  EXPECT_EQ(uses.value().uses, 0u);
}

TEST_F(NamespacesTest, AnothersSessionDoesNotExist) {
  narrow();
  TestPeer& other = peer("g2", generator_hello(200));
  wire::Observation o;
  o.session = 5;
  other.send(o);
  other.expect_error(ErrorCode::kNotFound);
  other.send(wire::FetchMemory{5, {"default", "open", 0}});
  other.expect_error(ErrorCode::kNotFound);
  const MemoryPayload changed = small_payload(9.0f);
  other.send(write_back(changed, {"default", "open", 0}, open_.token), {bytes_of_payload(changed)});
  other.expect_error(ErrorCode::kNotFound);
  other.send(wire::CloseSession{5, o});
  other.expect_error(ErrorCode::kNotFound);
  expect_nothing_stored();
}

class NamespacesLearnTest : public NamespacesTest {
 protected:
  wire::LearnResult result(const std::string& job, const MemoryRef& ref) {
    return {.job = job, .lease = 1, .version = version_of(payload_, ref)};
  }
  std::vector<SharedBytes> parts() {
    const std::vector<float> keys(2 * kDim, 1.0f);
    const auto bytes = std::as_bytes(std::span(keys));
    return {bytes_of_payload(payload_), share_bytes({bytes.begin(), bytes.end()})};
  }
  // Submitted by the client, not yet leased.
  std::string submit(TestPeer& client, const std::string& ns) {
    client.send(wire::SubmitTask{"learn", nlohmann::json({{"text", "The light was lit."},
                                                          {"source", "light"},
                                                          {"id", "light"},
                                                          {"namespace", ns},
                                                          {"watch", false},
                                                          {"config", {{"kind", "lora"}}}})
                                              .dump()});
    return client.event()["job"].get<std::string>();
  }
  const MemoryPayload payload_ = small_payload(3.0f);
};

TEST_F(NamespacesLearnTest, AWorkerHearsNothingOfAnothersJobAndItsResultIsDropped) {
  TestPeer& c = peer("c", client_hello());
  TestPeer& g = narrow();
  const std::string job = submit(c, "private");
  // It was not leased to g1, which claims it all the same.
  g.send(result(job, {"private", "light", 0}), parts());
  auto ack = g.expect<wire::LearnAck>();
  ASSERT_TRUE(ack);
  EXPECT_FALSE(ack->accepted);
  EXPECT_EQ(ack->message, "no such job");
  g.send(wire::LearnFailed{job, 1, ErrorCode::kInvalidArgument, "spoil it"});
  ack = g.expect<wire::LearnAck>();
  ASSERT_TRUE(ack);
  EXPECT_FALSE(ack->accepted);
  g.send_as(0, wire::LearnProgress{job, 1, 1, 2, 0, 0, "training"});
  EXPECT_EQ(g.expect<wire::CancelLearn>()->job, job);
  EXPECT_EQ(c.admin("jobs.show", {{"job", job}})["job"]["state"], "queued");
  expect_nothing_stored();

  TestPeer& wide = peer("g2", generator_hello(200));
  const auto leased = wide.expect<wire::AssignLearn>();
  ASSERT_TRUE(leased);
  EXPECT_EQ(leased->job, job);
  // Nor while another has it.
  g.send(result(job, {"private", "light", 0}), parts());
  EXPECT_FALSE(g.expect<wire::LearnAck>()->accepted);
  expect_nothing_stored();
  wide.send(result(job, {"private", "light", 0}), parts());
  EXPECT_TRUE(wide.expect<wire::LearnAck>()->accepted);
  EXPECT_EQ(bank_.head({"private", "light", 0}, kFarDeadline).value().token, job + ":1");
}

TEST_F(NamespacesLearnTest, AResultThatNamesAnotherMemoryIsRefusedAndEndsTheJob) {
  TestPeer& c = peer("c", client_hello());
  TestPeer& g = narrow();
  for (const MemoryRef& named :
       {MemoryRef{"private", "light", 0}, MemoryRef{"default", "open", 0}}) {
    const std::string job = submit(c, "default");
    const auto leased = g.expect<wire::AssignLearn>();
    ASSERT_TRUE(leased);
    EXPECT_EQ(leased->target.text(), "default/light");
    g.send(result(job, named), parts());
    const auto ack = g.expect<wire::LearnAck>();
    ASSERT_TRUE(ack);
    EXPECT_FALSE(ack->accepted);
    EXPECT_NE(ack->message.find("expected default/light, found " + named.text()), std::string::npos)
        << ack->message;
    const auto shown = c.admin("jobs.show", {{"job", job}})["job"];
    EXPECT_EQ(shown["state"], "failed") << shown;
    EXPECT_EQ(shown["code"], static_cast<int>(ErrorCode::kMismatch)) << shown;
  }
  expect_nothing_stored();
}

}  // namespace
}  // namespace memslot
