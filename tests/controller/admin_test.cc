// Administration verbs and what a client may see, through the server.
#include <set>

#include "controller/link/arguments.h"
#include "controller/main/settings.h"
#include "shared/wire/limits.h"
#include "tests/controller/link_peers.h"

namespace memslot {
namespace {

using Json = nlohmann::json;

class AdminTest : public ServerTest {
 protected:
  void SetUp() override {
    publish("a");
    publish("a", 2.0f);
    publish("b");
    start();
    c_ = &client();
  }
  Json admin(const std::string& verb, const Json& arguments = Json::object()) {
    return c_->admin(verb, arguments);
  }
  TestPeer* c_ = nullptr;
};

TEST_F(AdminTest, ListsMemoriesPageByPage) {
  const Json all = admin("bank.ls");
  ASSERT_EQ(all["memories"].size(), 2u);
  EXPECT_EQ(all["next"], "");
  Json page = admin("bank.ls", {{"limit", 1}});
  ASSERT_EQ(page["memories"].size(), 1u);
  EXPECT_EQ(page["memories"][0], all["memories"][0]);
  page = admin("bank.ls", {{"limit", 1}, {"after", page["next"]}});
  ASSERT_EQ(page["memories"].size(), 1u);
  EXPECT_EQ(page["memories"][0], all["memories"][1]);
  EXPECT_EQ(admin("bank.ls", {{"prefix", "b"}})["memories"].size(), 1u);
  EXPECT_EQ(admin("bank.ls", {{"source", "other"}})["memories"].size(), 0u);
  EXPECT_EQ(admin("bank.ls", {{"namespace", "empty"}})["memories"].size(), 0u);
}

// Of the largest metadata that the bank takes: far more than one envelope holds.
std::string long_config() { return "{\"note\":\"" + std::string(48 << 10, 'x') + "\"}"; }

TEST_F(AdminTest, APageOfMemoriesEndsBeforeAnEnvelopeIsFull) {
  for (int i = 0; i < 100; ++i) {
    publish(numbered(static_cast<unsigned>(i)), 1.0f, long_config());
    c_->beat();  // on a busy machine this takes longer than four heartbeats
  }
  std::set<std::string> seen;
  Json arguments = {{"limit", 10000}};
  int pages = 0;
  for (bool more = true; more; ++pages) {
    const Json page = admin("bank.ls", arguments);
    ASSERT_TRUE(page.contains("memories")) << page;
    for (const Json& memory : page["memories"]) {
      EXPECT_TRUE(seen.insert(memory["id"].get<std::string>()).second) << "listed twice";
    }
    arguments["after"] = page["next"];
    more = page["next"] != "";
  }
  EXPECT_EQ(seen.size(), 102u);
  EXPECT_GT(pages, 1);
}

TEST_F(AdminTest, APageOfVersionsEndsBeforeAnEnvelopeIsFull) {
  for (int i = 0; i < 100; ++i) {
    publish("a", 1.0f, long_config());
    c_->beat();
  }
  std::uint64_t expected = 0;
  int pages = 0;
  for (bool more = true; more; ++pages) {
    const Json page = admin("bank.history", {{"memory", "a"}, {"after", expected}});
    ASSERT_TRUE(page.contains("versions")) << page;
    for (const Json& version : page["versions"]) EXPECT_EQ(version["version"], ++expected);
    more = page["next"] != 0;
    if (more) {
      ASSERT_EQ(page["next"], expected);
    }
  }
  EXPECT_EQ(expected, 102u);
  EXPECT_GT(pages, 1);
}

TEST_F(AdminTest, AListOfJobsHasTheNewestAndSaysHowManyMore) {
  stop();
  for (int i = 0; i < 6; ++i) {
    Job job;
    job.id = "job-" + std::to_string(i);
    job.target = {.ns = "default", .id = "s", .version = 0};
    job.source = "s" + std::to_string(i);
    job.state = JobState::kFailed;
    job.message = std::string(400'000, 'x');  // a document holds 512 KiB
    const std::string json = to_json(job);
    DocumentDraft draft;
    draft.json = json;
    ASSERT_TRUE(documents_.put("job", "all", job.id, draft, kFarDeadline));
  }
  serve();
  c_ = &client(501);
  const Json list = admin("jobs.ls");
  ASSERT_TRUE(list.contains("jobs")) << list;
  ASSERT_FALSE(list["jobs"].empty());
  EXPECT_EQ(list["jobs"].back()["source"], "s5");
  EXPECT_EQ(list["jobs"].size() + list["left_off"].get<std::size_t>(), 6u);
}

TEST_F(AdminTest, AResultOverTheEnvelopesLimitIsAnsweredByItsError) {
  publish("long", 1.0f, "", std::string(wire::kMaxEnvelopeBytes, 'x'));
  const Json answer = admin("bank.show", {{"memory", "long"}});
  EXPECT_EQ(answer["error"], "invalid_argument");
  EXPECT_NE(answer["message"].get<std::string>().find("result: "), std::string::npos) << answer;
  EXPECT_NE(answer["message"].get<std::string>().find("at most 4194304"), std::string::npos);
  EXPECT_TRUE(admin("bank.show", {{"memory", "a"}}).contains("version"));
  EXPECT_TRUE(admin("bank.show", {{"memory", "a"}})["mean_net_gain"].is_null()) << "none measured";
}

TEST_F(AdminTest, ShowsHistoryAndRollsBack) {
  EXPECT_EQ(admin("bank.show", {{"memory", "a"}})["source_text"], "words");
  EXPECT_EQ(admin("bank.history", {{"memory", "default/a"}})["versions"].size(), 2u);
  ASSERT_TRUE(admin("bank.rollback", {{"memory", "a"}, {"to", 1}}).contains("version"));
  EXPECT_EQ(admin("bank.history", {{"memory", "a"}})["versions"].size(), 3u);
  const auto first =
      bank_.version({.ns = "default", .id = "a", .version = 1}, kFarDeadline).value();
  EXPECT_EQ(bank_.head(first.ref, kFarDeadline).value().sha256, first.sha256);
  EXPECT_EQ(admin("bank.rollback", {{"memory", "a"}, {"to", 9}})["error"], "not_found");
}

TEST_F(AdminTest, AVersionIsRefusedWhereTheWholeMemoryIsMeant) {
  EXPECT_EQ(admin("bank.rm", {{"memory", "a@1"}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.rollback", {{"memory", "a@2"}, {"to", 1}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.history", {{"memory", "a"}})["versions"].size(), 2u);
}

TEST_F(AdminTest, RemovesAMemoryEverywhere) {
  EXPECT_TRUE(admin("bank.rm", {{"memory", "a"}}).contains("erased"));
  EXPECT_EQ(admin("bank.show", {{"memory", "a"}})["error"], "not_found");
  EXPECT_EQ(admin("bank.rm", {{"memory", "a"}})["error"], "not_found");
  EXPECT_EQ(admin("bank.usage")["memories"], 1u);
}

TEST_F(AdminTest, RemovesALearnedMemoryWithEveryTraceOfItsText) {
  const auto before = store_.list_payloads("", 100, kFarDeadline).value().entries.size();
  TestPeer& g = generator();
  c_->send(wire::SubmitTask{"learn", R"({"text":"secret words","source":"s","id":"learned"})"});
  const auto lease = g.expect<wire::AssignLearn>();
  ASSERT_TRUE(lease);
  const MemoryPayload payload = small_payload(3.0f);
  wire::LearnResult result{.job = lease->job, .lease = lease->lease, .version = {}};
  result.version.ref = lease->target;
  result.version.signature = payload.signature();
  result.version.dtype = payload.dtype();
  result.version.payload_bytes = payload.bytes().size();
  result.version.sha256 = sha256(payload.bytes());
  const std::vector<float> keys(2 * kDim, 1.0f);
  const auto key_bytes = std::as_bytes(std::span(keys));
  g.send(result, {share_bytes({payload.bytes().begin(), payload.bytes().end()}),
                  share_bytes({key_bytes.begin(), key_bytes.end()})});
  const auto ack = g.expect<wire::LearnAck>();
  ASSERT_TRUE(ack && ack->accepted);
  for (bool last = false; !last;) ASSERT_FALSE(c_->event(&last).is_null());
  EXPECT_TRUE(admin("bank.rm", {{"memory", "learned"}}).contains("erased"));
  EXPECT_EQ(store_.list_payloads("", 100, kFarDeadline).value().entries.size(), before);
  EXPECT_TRUE(documents_.list("job", "all", "", 10, kFarDeadline).value().documents.empty());
  EXPECT_EQ(admin("jobs.show", {{"job", lease->job}})["error"], "not_found");
}

TEST_F(AdminTest, GivesARetriedRequestTheSameAnswer) {
  c_->send_as(900, wire::AdminRequest{"bank.rollback", R"({"memory":"a","to":1})"});
  const auto first = c_->expect<wire::AdminReply>();
  c_->send_as(900, wire::AdminRequest{"bank.rollback", R"({"memory":"a","to":1})"});
  const auto again = c_->expect<wire::AdminReply>();
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->result, again->result);
  EXPECT_EQ(bank_.history({.ns = "default", .id = "a"}, kFarDeadline).value().size(), 3u);
}

TEST_F(AdminTest, ExportsAndImportsThroughAFile) {
  std::vector<SharedBytes> file;
  ASSERT_TRUE(c_->admin("bank.export", {{"memory", "a"}}, {}, &file).contains("version"));
  ASSERT_EQ(file.size(), 1u);
  const Json made = c_->admin("bank.import", {{"namespace", "notes"}, {"id", "copy"}}, {file[0]});
  ASSERT_TRUE(made.contains("version")) << made;
  const auto copy = bank_.head({.ns = "notes", .id = "copy"}, kFarDeadline).value();
  EXPECT_EQ(copy.sha256, bank_.head({.ns = "default", .id = "a"}, kFarDeadline).value().sha256);
  EXPECT_EQ(admin("bank.ls")["memories"].size(), 3u);
  std::vector<std::byte> damaged = *file[0];
  damaged[damaged.size() / 2] ^= std::byte{1};
  EXPECT_EQ(c_->admin("bank.import", {{"id", "bad"}}, {share_bytes(damaged)})["error"],
            "corruption");
  EXPECT_EQ(admin("bank.import", {{"id", "none"}})["error"], "invalid_argument");
}

TEST_F(AdminTest, VerifiesTheBank) {
  c_->send(wire::SubmitTask{"verify", "{}"});
  Json last = Json::object();
  for (int i = 0; i < 10 && last.value("type", "") != "verified"; ++i) last = c_->event();
  EXPECT_EQ(last["versions"], 3u);
  EXPECT_EQ(last["damaged"], 0u);
}

TEST_F(AdminTest, SaysWhatIsWrongWithARequest) {
  EXPECT_EQ(admin("bank.dance")["error"], "invalid_argument");
  EXPECT_EQ(admin("dance")["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.ls", {{"limt", 3}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.ls", {{"limit", 0}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.ls", {{"limit", "many"}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.show")["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.show", {{"memory", "no such name!"}})["error"], "invalid_argument");
  EXPECT_EQ(admin("bank.rollback", {{"memory", "a"}})["error"], "invalid_argument");
  EXPECT_EQ(admin("jobs.ls", {{"state", "asleep"}})["error"], "invalid_argument");
  EXPECT_EQ(admin("jobs.show", {{"job", "unknown"}})["error"], "not_found");
  EXPECT_EQ(admin("bank.backup", {{"directory", "/nowhere"}})["error"],
            "not_supported");  // in memory
  for (const char* relative : {"backup", "./backup", ""})
    EXPECT_EQ(admin("bank.backup", {{"directory", relative}})["error"], "invalid_argument");
}

TEST_F(AdminTest, NamesTheConnectedPeers) {
  generator();
  const Json peers = admin("peers.ls");
  ASSERT_EQ(peers["generators"].size(), 1u);
  EXPECT_EQ(peers["generators"][0]["model_name"], "tiny");
  EXPECT_EQ(peers["clients"], 1u);
}

// --- who sees what -------------------------------------------------------------------------------

constexpr const char* kKey = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

TEST(Access, ReadsLinesAndFindsKeys) {
  const auto list = AccessList::parse({std::string(kKey) + " client,generator a,b"});
  ASSERT_TRUE(list) << list.error().message;
  const auto access = list.value().access_of(kKey);
  ASSERT_TRUE(access);
  EXPECT_TRUE(access->generator && access->client);
  EXPECT_TRUE(access->sees("b"));
  EXPECT_FALSE(access->sees("c"));
  EXPECT_EQ(access->seen({"c", "b", "b"}), std::vector<std::string>{"b"});
  EXPECT_FALSE(list.value().access_of("another key"));
  EXPECT_TRUE(list.value().access_of("")->sees("anything"));
  const auto all = AccessList::parse({std::string(kKey) + " client *"});
  EXPECT_TRUE(all.value().access_of(kKey)->sees("anything"));
  EXPECT_FALSE(all.value().access_of(kKey)->generator);
}

TEST(Access, RefusesLinesThatAreNotOfItsForm) {
  const std::string key = kKey;
  for (const std::string& line : {key, key + " client", key + " boss a", key + " client a b",
                                  key + " client A!", std::string("short client a")}) {
    const auto list = AccessList::parse({line});
    ASSERT_FALSE(list) << line;
    EXPECT_EQ(list.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(AccessList::parse({key + " client a", key + " client b"}));
}

TEST(TaskNames, CollectsWhatATaskWouldSee) {
  const auto names =
      names_of_task(
          R"({"memory":"x/a@3","schedule":[{"step":1,"memory":"base"},{"step":2,"memory":"b"}]})")
          .value();
  EXPECT_EQ(names.namespaces, std::vector<std::string>{"default"});
  EXPECT_EQ(names.memories, (std::vector<std::string>{"x/a@3", "b"}));
  EXPECT_FALSE(names_of_task(R"({"namespaces":"default"})"));
  EXPECT_FALSE(names_of_task(R"({"namespaces":[1]})"));
  EXPECT_FALSE(names_of_task(R"({"memory":1})"));
  EXPECT_FALSE(names_of_task(R"({"schedule":[1]})"));
  EXPECT_FALSE(names_of_task("[]"));
}

TEST(ControllerSettings, RefusesWhatCannotBe) {
  ControllerSettings s;
  EXPECT_TRUE(server_settings(s));
  s.policy = "best";
  EXPECT_FALSE(server_settings(s));
  s = {};
  s.clients = {std::string(kKey) + " client *"};
  EXPECT_FALSE(server_settings(s));  // without keys of its own
  s.key_file = "/no/such/key";
  const auto server = server_settings(s);
  ASSERT_TRUE(server);
  EXPECT_EQ(link_options(s, server.value().access).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace memslot
