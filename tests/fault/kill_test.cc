// kill -9 of either process at random moments, with learning, learning over an existing head,
// write-back (also from a head that has moved on) and generation under way. MEMSLOT_KILLS times (6;
// 50 with MEMSLOT_FULL=1).
// Meanwhile:
//   - histories only grow, version by version, each made from the one before it;
//   - every head that is listed can be read: no version is visible before it is whole.
// Afterwards:
//   - every accepted learn job is done and made exactly one version: learned once, not lost;
//   - every acknowledged write-back is in the history, or kept as a branch where it lost;
//   - every payload of every version reads and verifies;
//   - base generates as before, and attests as before.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <set>

#include "tests/e2e/pair.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

int kills() {
  if (const char* named = std::getenv("MEMSLOT_KILLS")) return std::atoi(named);
  const char* full = std::getenv("MEMSLOT_FULL");
  return full != nullptr && std::string(full) == "1" ? 50 : 6;
}

const char* kText =
    "The ferry to Skerrow leaves at dawn and comes back when the tide has turned twice. Its "
    "captain keeps "
    "a brass bell from a drowned church.";

// Calls until it is answered, whatever is down meanwhile.
Result<json> insist(Client& client, const std::string& kind, const json& arguments,
                    std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    auto result = client.task(kind, arguments, nullptr, 20s);
    if (result || std::chrono::steady_clock::now() > end) return result;
    std::this_thread::sleep_for(50ms);
  }
}
Result<json> insist_admin(Client& client, const std::string& verb, const json& arguments,
                          std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    auto result = client.admin(verb, arguments, 5s);
    if (result || std::chrono::steady_clock::now() > end) return result;
    std::this_thread::sleep_for(50ms);
  }
}

struct WrittenBack {
  std::uint64_t session = 0;
  std::string memory;  // "default/state@N"
  bool branch = false;
};

struct Work {
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::map<std::string, std::string> jobs;  // accepted: job -> memory
  std::vector<WrittenBack> written_back;    // acknowledged
  std::vector<std::string> wrong;           // what was seen and must not be
  std::atomic<int> generated{0}, looked{0};

  void saw_wrong(std::string what) {
    const std::lock_guard lock(mutex);
    wrong.push_back(std::move(what));
  }
};

constexpr const char* kAgain = "again";  // learned over and over

// Submits one job after the other; `id` "" makes a memory for each.
void keep_learning(const std::string& endpoint, const std::string& id, Work& work) {
  Client client(endpoint);
  for (int i = 0; !work.stop; ++i) {
    const std::string memory = id.empty() ? "source-" + std::to_string(i) : id;
    const auto accepted = client.task(
        "learn",
        {{"text", kText + std::to_string(i)},
         {"source", memory},
         {"id", memory},
         {"watch", false},
         {"config", {{"kind", "lora"}, {"rank", 2}, {"max_steps", 4}, {"target_recall", 1}}}},
        nullptr, 20s);
    if (accepted) {
      const std::lock_guard lock(work.mutex);
      work.jobs[accepted.value()["job"].get<std::string>()] = memory;
    }
    std::this_thread::sleep_for(300ms);
  }
}

// One session after the other writes its state back over the version that it began with.
void keep_writing_back(const std::string& endpoint, const std::string& memory, Work& work) {
  Client client(endpoint);
  while (!work.stop) {
    std::vector<json> events;
    const auto done = client.task(
        "generate",
        {{"prompt", kText}, {"memory", memory}, {"max_tokens", 8}, {"write_back", true}}, &events,
        20s);
    if (!done || !done.value().contains("write_back")) continue;
    WrittenBack written;
    for (const json& event : events) {  // a controller that restarted had it generated again
      if (event["type"] == "start") written.session = event["session"].get<std::uint64_t>();
    }
    written.memory = done.value()["write_back"].get<std::string>();
    written.branch = done.value()["write_back_conflict"].get<bool>();
    const std::lock_guard lock(work.mutex);
    work.written_back.push_back(std::move(written));
  }
}

std::vector<MemoryVersion> versions_of(const json& list) {
  std::vector<MemoryVersion> out;
  for (const json& one : list) out.push_back(must(memory_version_from_json(one.dump())));
  return out;
}

// Whether an error says only that something is down.
bool passing(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kTimeout;
}

// One look at a memory that changes; `seen` is what the look before saw.
void look(Client& client, const std::string& id, std::vector<std::string>& seen, Work& work) {
  const auto history = client.admin("bank.history", {{"memory", id}}, 5s);
  if (!history) {
    const bool absent = history.error().code == ErrorCode::kNotFound && seen.empty();
    if (!absent && !passing(history.error().code)) {
      work.saw_wrong(id + ": history: " + history.error().message);
    }
    return;
  }
  std::vector<std::string> tokens;
  std::string parent;
  for (const MemoryVersion& version : versions_of(history.value()["versions"])) {
    if (version.ref.version != tokens.size() + 1) {
      work.saw_wrong(version.ref.text() + ": expected version " +
                     std::to_string(tokens.size() + 1));
    }
    if (version.parent != parent) work.saw_wrong(version.ref.text() + ": another parent");
    parent = version.token;
    tokens.push_back(version.token);
  }
  if (tokens.size() < seen.size() || !std::equal(seen.begin(), seen.end(), tokens.begin())) {
    work.saw_wrong(id + ": a version that was listed is gone");
  }
  seen = std::move(tokens);
  const auto head = client.admin("bank.export", {{"memory", id}}, 5s);  // reads it, digest and all
  if (!head && !passing(head.error().code)) {
    work.saw_wrong(id + ": head: " + head.error().message);
  }
  if (head) ++work.looked;
}

void keep_looking(const std::string& endpoint, Work& work) {
  Client client(endpoint);
  std::map<std::string, std::vector<std::string>> seen;
  while (!work.stop) {
    for (const char* id : {kAgain, "state"}) look(client, id, seen[id], work);
    std::this_thread::sleep_for(20ms);
  }
}

void keep_generating(const std::string& endpoint, Work& work) {
  Client client(endpoint);
  while (!work.stop) {
    const auto done = client.task(
        "generate", {{"prompt", kText}, {"memory", "auto"}, {"max_tokens", 64}}, nullptr, 20s);
    if (done) ++work.generated;
  }
}

void wait_for_jobs(Client& client, std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const json listed = must(insist_admin(client, "jobs.ls", json::object(), 60s));
    int open = 0;
    for (const json& job : listed["jobs"]) {
      open += job["state"] == "queued" || job["state"] == "leased" ? 1 : 0;
    }
    if (open == 0) return;
    ASSERT_LT(std::chrono::steady_clock::now(), end) << open << " jobs are not done";
    std::this_thread::sleep_for(200ms);
  }
}

// Every payload of the memory, read by its name.
void check_readable(Client& client, const MemoryVersion& version) {
  const auto read = insist_admin(client, "bank.export", {{"memory", version.ref.text()}}, 30s);
  EXPECT_TRUE(read) << version.ref.text() << ": " << read.error().message;
}

void check_jobs(Client& client, const Work& work) {
  const json listed = must(insist_admin(client, "jobs.ls", json::object(), 30s));
  std::map<std::string, std::set<std::string>> made;  // memory -> tokens of the jobs that made it
  std::map<std::string, json> jobs;
  for (const json& job : listed["jobs"]) {
    const std::string name = job["job"].get<std::string>();
    jobs[name] = job;
    if (job["state"] != "done") continue;
    EXPECT_FALSE(job["branch"].get<bool>()) << job;  // one lease at a time for one memory
    made[job["id"].get<std::string>()].insert(name + ":" +
                                              std::to_string(job["lease"].get<std::uint64_t>()));
  }
  for (const auto& [job, memory] : work.jobs) {
    ASSERT_TRUE(jobs.contains(job)) << "an accepted job is lost: " << job;
    EXPECT_EQ(jobs[job]["state"], "done") << jobs[job];
  }
  for (const auto& [memory, tokens] : made) {
    if (memory == "state") continue;  // changed by write-backs as well
    const json history = must(insist_admin(client, "bank.history", {{"memory", memory}}, 30s));
    std::set<std::string> found;
    for (const MemoryVersion& version : versions_of(history["versions"])) {
      EXPECT_TRUE(found.insert(version.token).second) << version.ref.text();
      check_readable(client, version);
    }
    EXPECT_EQ(found, tokens) << memory << ": one version for each job, and no other";
    EXPECT_EQ(found.size(), history["versions"].size());
    const json shown = must(insist_admin(client, "bank.show", {{"memory", memory}}, 30s));
    EXPECT_TRUE(shown["branches"].empty()) << memory;
  }
}

void check_write_backs(Client& client, const Work& work) {
  const json history = must(insist_admin(client, "bank.history", {{"memory", "state"}}, 30s));
  const json shown = must(insist_admin(client, "bank.show", {{"memory", "state"}}, 30s));
  std::map<std::string, std::string> versions;  // by the session that wrote it
  std::set<std::string> branches;
  for (const MemoryVersion& version : versions_of(history["versions"])) {
    versions[version.origin_id] = version.ref.text();
    check_readable(client, version);
  }
  for (const MemoryVersion& branch : versions_of(shown["branches"])) {
    EXPECT_TRUE(branch.branch);
    EXPECT_TRUE(branches.insert(branch.origin_id).second) << branch.origin_id << " wrote twice";
    EXPECT_FALSE(versions.contains(branch.origin_id)) << branch.origin_id << " wrote both";
  }
  for (const WrittenBack& written : work.written_back) {
    const std::string by = "session " + std::to_string(written.session);
    if (written.branch) {
      EXPECT_TRUE(branches.contains(by)) << "an acknowledged branch is lost: " << by;
    } else {
      ASSERT_TRUE(versions.contains(by)) << "an acknowledged write-back is lost: " << by;
      EXPECT_EQ(versions[by], written.memory);
    }
  }
}

TEST(Kill, LosesNothingAcknowledgedAndLearnsNothingTwice) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  Pair pair;
  pair.start();
  Client client(pair.endpoint);
  must(client.wait_connected());
  const json plain = {{"prompt", kText}, {"memory", "base"}, {"max_tokens", 32}};
  const json base = must(insist(client, "generate", plain, 30s));
  const json attest = must(insist(client, "attest", json::object(), 30s));
  must(insist(
      client, "learn",
      {{"text", kText}, {"source", "state"}, {"id", "state"}, {"config", {{"kind", "delta"}}}},
      60s));

  Work work;
  std::thread threads[] = {
      std::thread([&] { keep_learning(pair.endpoint, "", work); }),
      std::thread([&] { keep_learning(pair.endpoint, kAgain, work); }),
      std::thread([&] { keep_writing_back(pair.endpoint, "state", work); }),
      std::thread([&] { keep_writing_back(pair.endpoint, "state@1", work); }),
      std::thread([&] { keep_looking(pair.endpoint, work); }),
      std::thread([&] { keep_generating(pair.endpoint, work); }),
  };
  std::string failed;
  for (int i = 0; i < kills() && failed.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200 + rng() % 2000));
    Process& victim = rng() % 2 == 0 ? pair.controller : pair.generator;
    Process& other = &victim == &pair.controller ? pair.generator : pair.controller;
    victim.kill(SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(rng() % 500));
    if (!other.alive()) failed = "the other process died with it";
    try {
      victim.start();
    } catch (const std::exception& e) {
      failed = e.what();
    }
  }
  std::this_thread::sleep_for(1s);
  work.stop = true;
  for (std::thread& t : threads) t.join();
  ASSERT_EQ(failed, "");
  for (const std::string& wrong : work.wrong) ADD_FAILURE() << wrong;

  wait_for_jobs(client, 180s);
  check_jobs(client, work);
  check_write_backs(client, work);
  const json verified = must(insist(client, "verify", json::object(), 60s));
  EXPECT_EQ(verified["damaged"], 0) << verified;
  const json after = must(insist(client, "generate", plain, 30s));
  EXPECT_EQ(after["logits_xxh3"], base["logits_xxh3"]);
  const json attest_after = must(insist(client, "attest", json::object(), 30s));
  EXPECT_EQ(attest_after["equal"], true);
  EXPECT_EQ(attest_after["digest"], attest["digest"]);
  const auto again = std::count_if(work.jobs.begin(), work.jobs.end(),
                                   [](const auto& job) { return job.second == kAgain; });
  const auto branches = std::count_if(work.written_back.begin(), work.written_back.end(),
                                      [](const WrittenBack& one) { return one.branch; });
  std::printf(
      "kills=%d jobs=%zu (%td over a head) write_backs=%zu (%td branches) generated=%d "
      "looks=%d\n",
      kills(), work.jobs.size(), again, work.written_back.size(), branches, work.generated.load(),
      work.looked.load());
  EXPECT_GT(again, 1);
  EXPECT_GT(static_cast<std::ptrdiff_t>(work.jobs.size()), again);
  EXPECT_GT(branches, 0);
  EXPECT_GT(static_cast<std::ptrdiff_t>(work.written_back.size()), branches);
  EXPECT_GT(work.generated.load(), 0);
  EXPECT_GT(work.looked.load(), 0);
  if (testing::Test::HasFailure()) {
    std::fprintf(stderr, "--- controller\n%s--- generator\n%s", pair.controller.log().c_str(),
                 pair.generator.log().c_str());
  }
}

}  // namespace
}  // namespace memslot
