// kill -9 at random moments: what was acknowledged is there, and nothing is half there.
#include <random>
#include <set>
#include <thread>

#include "storage/garbage.h"
#include "tests/storage/child_process.h"
#include "tests/storage/crash_memories.h"
#include "tests/storage/store_cases.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

constexpr int kRounds = 25;

class BankCrash : public testing::Test {
 protected:
  // Publishes until the kill; adds what was acknowledged.
  void one_round(int round, std::chrono::milliseconds life) {
    ChildProcess writer("publish", bank_, std::to_string(round));
    std::thread killer;
    const auto add = [&](const std::string& line) {
      const auto space = line.find(' ');
      ASSERT_NE(space, std::string::npos) << line;
      acknowledged_.emplace(line.substr(0, space), line.substr(space + 1));
    };
    const std::string first = writer.line();  // opening takes as long as it takes
    ASSERT_FALSE(first.empty()) << "the writer did not start";
    add(first);
    killer = std::thread([&] {
      std::this_thread::sleep_for(life);
      ::kill(writer.pid(), SIGKILL);
    });
    for (std::string line = writer.line(); !line.empty(); line = writer.line()) add(line);
    killer.join();
    EXPECT_EQ(writer.wait(), -SIGKILL);
  }

  void check(BankStore& store) {
    MemoryBank bank(store, clock_);
    std::set<std::pair<std::string, std::string>> found;
    const auto page = bank.list("default", {}, "", 100, kNoDeadline);
    ASSERT_OK(page);
    for (const auto& head : page.value().heads) {
      const auto history = bank.history(head.ref, kNoDeadline);
      ASSERT_OK(history);
      ASSERT_EQ(history.value().back(), head);
      std::string parent;
      for (const auto& version : history.value()) {
        EXPECT_EQ(version.parent, parent);
        parent = version.token;
        found.emplace(version.ref.id, version.token);
      }
    }
    for (const auto& [id, token] : acknowledged_) {
      EXPECT_TRUE(found.contains({id, token}))
          << id << " " << token << " was acknowledged and is lost";
    }
    const auto report = bank.verify(nullptr, kNoDeadline);  // every visible version is whole
    ASSERT_OK(report);
    for (const auto& bad : report.value().bad)
      ADD_FAILURE() << bad.record << " " << bad.payload << ": " << bad.message;
    EXPECT_EQ(report.value().versions, found.size());
    in_flight_ += found.size() - acknowledged_.size();
    acknowledged_ = found;  // an unacknowledged version that is visible must stay, too
  }

  SystemClock clock_;
  testing_support::TemporaryFolder folder_;
  const std::string bank_ = folder_.path() + "/bank";
  std::set<std::pair<std::string, std::string>> acknowledged_;
  std::size_t in_flight_ = 0;
};

TEST_F(BankCrash, NothingAcknowledgedIsLostAndNothingHalfWrittenIsVisible) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    one_round(round, std::chrono::milliseconds(rng() % 250));
    const auto store = open_store(bank_, {.create_if_missing = false}, clock_);
    ASSERT_OK(store);
    check(*store.value());
    if (round % 5 == 4) {
      ASSERT_OK(collect_garbage(*store.value(), clock_, Duration(0), kNoDeadline));
      check(*store.value());
    }
  }
  RecordProperty("acknowledged", static_cast<int>(acknowledged_.size()));
  std::printf("%d kills, %zu versions, %zu of them in flight when killed\n", kRounds,
              acknowledged_.size(), in_flight_);
  EXPECT_GT(acknowledged_.size(), static_cast<std::size_t>(kRounds));
}

}  // namespace
}  // namespace memslot
