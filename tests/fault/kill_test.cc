// kill -9 of either process at random moments, with learning, write-back and generation under way.
// MEMSLOT_KILLS times (6; 50 with MEMSLOT_FULL=1). Afterwards:
//   - every accepted learn job is done, and its memory has exactly one version: learned once, not
//   lost;
//   - every acknowledged write-back is in the bank;
//   - every payload of every version reads and verifies;
//   - base generates as before, and attests as before.
#include <gtest/gtest.h>

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

struct Work {
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::map<std::string, std::string> jobs;  // accepted: job -> source
  std::set<std::string> written_back;       // acknowledged: "default/state@N"
  std::atomic<int> generated{0};
};

void keep_learning(const std::string& endpoint, Work& work) {
  Client client(endpoint);
  for (int i = 0; !work.stop; ++i) {
    const std::string source = "source-" + std::to_string(i);
    const auto accepted = client.task(
        "learn",
        {{"text", kText},
         {"source", source},
         {"id", source},
         {"watch", false},
         {"config", {{"kind", "lora"}, {"rank", 2}, {"max_steps", 4}, {"target_recall", 1}}}},
        nullptr, 20s);
    if (accepted) {
      const std::lock_guard lock(work.mutex);
      work.jobs[accepted.value()["job"].get<std::string>()] = source;
    }
    std::this_thread::sleep_for(300ms);
  }
}

void keep_writing_back(const std::string& endpoint, Work& work) {
  Client client(endpoint);
  while (!work.stop) {
    const auto done = client.task(
        "generate",
        {{"prompt", kText}, {"memory", "state"}, {"max_tokens", 8}, {"write_back", true}}, nullptr,
        20s);
    if (!done || !done.value().contains("write_back")) continue;
    const std::lock_guard lock(work.mutex);
    work.written_back.insert(done.value()["write_back"].get<std::string>() +
                             (done.value()["write_back_conflict"].get<bool>() ? " (branch)" : ""));
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

void check_jobs(Client& client, const Work& work) {
  const json listed = must(insist_admin(client, "jobs.ls", json::object(), 30s));
  std::map<std::string, json> jobs;
  for (const json& job : listed["jobs"]) jobs[job["job"].get<std::string>()] = job;
  for (const auto& [job, source] : work.jobs) {
    ASSERT_TRUE(jobs.contains(job)) << "an accepted job is lost: " << job;
    EXPECT_EQ(jobs[job]["state"], "done") << jobs[job];
    const json history = must(client.admin("bank.history", {{"memory", source}}));
    EXPECT_EQ(history["versions"].size(), 1u) << source << " was learned more than once";
    const json shown = must(client.admin("bank.show", {{"memory", source}}));
    EXPECT_TRUE(shown["branches"].empty()) << source;
  }
}

void check_write_backs(Client& client, const Work& work) {
  const json history = must(insist_admin(client, "bank.history", {{"memory", "state"}}, 30s));
  std::set<std::string> versions;
  for (const json& version : history["versions"]) {
    const MemoryVersion v = must(memory_version_from_json(version.dump()));
    versions.insert(v.ref.text());
  }
  for (const std::string& stored : work.written_back) {
    if (stored.find("(branch)") != std::string::npos) continue;  // kept beside the history
    EXPECT_TRUE(versions.contains(stored)) << "an acknowledged write-back is lost: " << stored;
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
  std::vector<std::thread> threads;
  threads.emplace_back([&] { keep_learning(pair.endpoint, work); });
  threads.emplace_back([&] { keep_writing_back(pair.endpoint, work); });
  threads.emplace_back([&] { keep_generating(pair.endpoint, work); });
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
  std::printf("kills=%d jobs=%zu write_backs=%zu generated=%d\n", kills(), work.jobs.size(),
              work.written_back.size(), work.generated.load());
  EXPECT_GT(work.jobs.size(), 0u);
  EXPECT_GT(work.written_back.size(), 0u);
  EXPECT_GT(work.generated.load(), 0);
  if (testing::Test::HasFailure()) {
    std::fprintf(stderr, "--- controller\n%s--- generator\n%s", pair.controller.log().c_str(),
                 pair.generator.log().c_str());
  }
}

}  // namespace
}  // namespace memslot
