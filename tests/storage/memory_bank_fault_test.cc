// The bank of memories over a store that fails at every possible call.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <thread>

#include "storage/open_store.h"
#include "tests/storage/memory_samples.h"
#include "tests/support/faulty_store.h"

namespace memslot {
namespace {

using Call = FaultyStore::Call;

class MemoryBankFaults : public testing::Test {
 protected:
  SystemClock clock_;
  MemoryStore real_{clock_};
  FaultyStore store_{real_};
  MemoryBank bank_{store_, clock_};
};

TEST_F(MemoryBankFaults, ALostAcknowledgementIsResolvedByReadingTheHead) {
  Sample sample("t1");
  store_.fail_after(Call::kPublish, 1, ErrorCode::kIndeterminate);
  const auto published = bank_.publish_memory(sample.draft, kNoDeadline);
  ASSERT_OK(published);
  EXPECT_EQ(published.value().version.ref.version, 1U);
  EXPECT_EQ(store_.calls(Call::kPublish), 1);
}

TEST_F(MemoryBankFaults, AnIndeterminatePublishThatDidNotHappenIsTriedAgain) {
  Sample sample("t1");
  store_.fail_before(Call::kPublish, 1, ErrorCode::kIndeterminate);
  ASSERT_OK(bank_.publish_memory(sample.draft, kNoDeadline));
  EXPECT_EQ(store_.calls(Call::kPublish), 2);
  EXPECT_EQ(real_.history("memory/default/skerrow", kNoDeadline).value().size(), 1U);
}

TEST_F(MemoryBankFaults, AnOutcomeThatStaysUnknownIsSaidAndARetrySettlesIt) {
  Sample sample("t1");
  for (int i = 1; i <= 3; ++i) store_.fail_before(Call::kPublish, i, ErrorCode::kIndeterminate);
  EXPECT_ERROR(bank_.publish_memory(sample.draft, kNoDeadline), ErrorCode::kIndeterminate);
  ASSERT_OK(bank_.publish_memory(sample.draft, kNoDeadline));
}

TEST_F(MemoryBankFaults, AWriterThatOvertakesBetweenReadAndPublishMakesABranch) {
  Sample one("t1", 1), mine("t2", 2);
  ASSERT_OK(bank_.publish_memory(one.draft, kNoDeadline));
  MemoryBank other(real_, clock_);  // another process, as far as the lock in the bank goes
  Sample theirs("t3", 3);
  theirs.expecting("t1");
  store_.run_before(Call::kPublish, 2,
                    [&] { ASSERT_OK(other.publish_memory(theirs.draft, kNoDeadline)); });
  const auto lost = bank_.publish_memory(mine.expecting("t1").draft, kNoDeadline);
  ASSERT_OK(lost);
  EXPECT_TRUE(lost.value().conflict());
  EXPECT_EQ(lost.value().head_token, "t3");
  EXPECT_EQ(tokens_of(bank_.branches(kSkerrow, kNoDeadline).value()),
            (std::vector<std::string>{"t2"}));
}

// A crash is a failure after which the writer never comes back: whatever call it hits, no version
// is ever visible with a part missing, and a retry completes it.
TEST_F(MemoryBankFaults, AFailureAtAnyCallLeavesNoHalfVersionAndARetryCompletes) {
  for (const auto call : {Call::kPut, Call::kPublish, Call::kHead, Call::kHistory}) {
    for (int number = 1; number <= 4; ++number) {
      for (const bool after : {false, true}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(call) << " " << number << " " << after);
        MemoryStore real(clock_);
        FaultyStore store(real);
        MemoryBank bank(store, clock_);
        Sample one("t1", 1), two("t2", 2);
        if (after) {
          store.fail_after(call, number, ErrorCode::kIo);
        } else {
          store.fail_before(call, number, ErrorCode::kIo);
        }
        const auto first = bank.publish_memory(one.draft, kNoDeadline);
        const auto second = bank.publish_memory(two.expecting("t1").draft, kNoDeadline);
        MemoryBank check(real, clock_);
        EXPECT_TRUE(check.verify(nullptr, kNoDeadline).value().bad.empty());
        if (!first) {
          ASSERT_OK(check.publish_memory(one.draft, kNoDeadline));
        }
        if (!second) {
          ASSERT_OK(check.publish_memory(two.draft, kNoDeadline));
        }
        const auto history = check.history(kSkerrow, kNoDeadline).value();
        EXPECT_EQ(tokens_of(history), (std::vector<std::string>{"t1", "t2"}));
        EXPECT_TRUE(check.verify(nullptr, kNoDeadline).value().bad.empty());
      }
    }
  }
}

// How many files of the bank hold the text.
int files_with(const std::string& directory, const std::string& text) {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    files += bytes.find(text) != std::string::npos ? 1 : 0;
  }
  return files;
}

struct Interruption {
  Call call;
  int number;
  bool after;  // it happened, but its acknowledgement did not come
};
std::vector<Interruption> interruptions() {
  std::vector<Interruption> out;
  const auto add = [&](Call call, int numbers) {
    for (int number = 1; number <= numbers; ++number) {
      for (const bool after : {false, true}) out.push_back({call, number, after});
    }
  };
  add(Call::kPublish, 2);  // the tombstone, and that the erase has ended
  add(Call::kTrim, 2);
  add(Call::kErase, 3);  // branch, memory, statistics
  add(Call::kErasePayload, 9);
  add(Call::kCompact, 1);
  return out;
}

class InterruptedErase : public testing::TestWithParam<Interruption> {
 protected:
  const Interruption cut_ = GetParam();
  SystemClock clock_;
};

TEST_P(InterruptedErase, IsFinishedByRepeatingItAfterARestartAndLeavesNoTextOnTheDisk) {
  const testing_support::TemporaryFolder folder;
  const auto open = [&] { return open_store(folder.path(), {}, clock_).value(); };
  Sample one("t1", 1), two("t2", 2), lost("t3", 3);
  auto real = open();
  {
    MemoryBank writer(*real, clock_);
    ASSERT_OK(writer.publish_memory(one.draft, kNoDeadline));
    ASSERT_OK(writer.publish_memory(two.expecting("t1").draft, kNoDeadline));
    ASSERT_OK(writer.publish_memory(lost.expecting("t1").draft, kNoDeadline));
    writer.note_use(kSkerrow, 0.5);
    ASSERT_OK(writer.flush_statistics(kNoDeadline));
    ASSERT_OK(real->compact(kNoDeadline));
    ASSERT_GT(files_with(folder.path(), "The light at Skerrow"), 0);
    FaultyStore store(*real);
    MemoryBank bank(store, clock_);
    cut_.after ? store.fail_after(cut_.call, cut_.number, ErrorCode::kIo)
               : store.fail_before(cut_.call, cut_.number, ErrorCode::kIo);
    EXPECT_ERROR(bank.erase(kSkerrow, kNoDeadline), ErrorCode::kIo);
  }
  real.reset();
  real = open();
  MemoryBank bank(*real, clock_);
  const bool had_ended = cut_.call == Call::kTrim && cut_.number == 2;
  const bool had_been_marked = cut_.call == Call::kPublish && cut_.number == 2 && cut_.after;
  if (had_ended || had_been_marked) {
    EXPECT_ERROR(bank.erase(kSkerrow, kNoDeadline), ErrorCode::kNotFound);
  } else {
    ASSERT_OK(bank.erase(kSkerrow, kNoDeadline));
    EXPECT_ERROR(bank.erase(kSkerrow, kNoDeadline), ErrorCode::kNotFound);
  }
  EXPECT_EQ(files_with(folder.path(), "The light at Skerrow"), 0);
  EXPECT_EQ(payload_count(*real), 0U);
  EXPECT_TRUE(real->list("branch/", "", 10, kNoDeadline).value().entries.empty());
  EXPECT_TRUE(real->list("stats/", "", 10, kNoDeadline).value().entries.empty());
  EXPECT_EQ(bank.tombstone(kSkerrow, kNoDeadline).value().last_version, 2U);
  EXPECT_ERROR(bank.publish_memory(Sample("t1", 1).draft, kNoDeadline), ErrorCode::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(AtEveryCall, InterruptedErase, testing::ValuesIn(interruptions()),
                         [](const auto& at) {
                           return "Call" + std::to_string(static_cast<int>(at.param.call)) +
                                  "Number" + std::to_string(at.param.number) +
                                  (at.param.after ? "After" : "Before");
                         });

TEST_F(MemoryBankFaults, OthersGoOnWhileAnEraseCompacts) {
  Sample one("t1", 1), again("t2", 2);
  ASSERT_OK(bank_.publish_memory(one.draft, kNoDeadline));
  store_.run_before(Call::kCompact, 1, [&] {  // the same memory: certainly the same lock
    std::thread([&] { ASSERT_OK(bank_.publish_memory(again.draft, kNoDeadline)); }).join();
  });
  ASSERT_OK(bank_.erase(kSkerrow, kNoDeadline));
  EXPECT_EQ(bank_.head(kSkerrow, kNoDeadline).value().token, "t2");
  EXPECT_EQ(payload_count(real_), 3U);
}

// Whatever a bank in use loses between the listing and the reading is no damage.
TEST_F(MemoryBankFaults, VerifyTakesWhatIsErasedMeanwhileForErased) {
  for (const auto call : {Call::kHistory, Call::kGet}) {
    for (int number = 1; number <= 5; ++number) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(call) << " " << number);
      MemoryStore real(clock_);
      FaultyStore store(real);
      MemoryBank writer(real, clock_), bank(store, clock_);
      Sample one("t1", 1), other("u1", 2, "other");
      ASSERT_OK(writer.publish_memory(one.draft, kNoDeadline));
      ASSERT_OK(writer.publish_memory(other.draft, kNoDeadline));
      ASSERT_OK(real.put_payload("zz:b", bytes_of("the text of a job"), kNoDeadline));
      store.run_before(call, number, [&] {
        ASSERT_OK(writer.erase(kSkerrow, kNoDeadline));
        ASSERT_OK(writer.erase({"default", "other", 0}, kNoDeadline));
        ASSERT_OK(real.erase_payload("zz:b", kNoDeadline));
      });
      const auto report = bank.verify(nullptr, kNoDeadline);
      ASSERT_OK(report);
      EXPECT_TRUE(report.value().bad.empty())
          << report.value().bad.at(0).record << " " << report.value().bad.at(0).message;
    }
  }
}

TEST_F(MemoryBankFaults, VerifyReportsAPartThatItsVersionStillNeeds) {
  Sample one("t1", 1);
  ASSERT_OK(bank_.publish_memory(one.draft, kNoDeadline));
  ASSERT_OK(real_.erase_payload("t1:s", kNoDeadline));
  const auto report = bank_.verify(nullptr, kNoDeadline).value();
  ASSERT_EQ(report.bad.size(), 1U);
  EXPECT_EQ(report.bad[0].payload, "t1:s");
}

TEST_F(MemoryBankFaults, AQuotaThatOneVersionWouldPassRefusesItWhole) {
  Sample one("t1", 1), two("t2", 2);
  const auto size = one.payload.bytes().size() + one.source.size() + 8 + 12 * sizeof(float);
  MemoryStore small(clock_, size + 10);
  MemoryBank bank(small, clock_);
  ASSERT_OK(bank.publish_memory(one.draft, kNoDeadline));
  EXPECT_ERROR(bank.publish_memory(two.expecting("t1").draft, kNoDeadline), ErrorCode::kNoSpace);
  EXPECT_EQ(payload_count(small), 3U);
  EXPECT_EQ(bank.head(kSkerrow, kNoDeadline).value().token, "t1");
  ASSERT_OK(bank.publish_memory(one.draft, kNoDeadline));  // a retry needs no space
}

TEST_F(MemoryBankFaults, TheQuotaCountsTheBytesOfARetriedVersionOnce) {
  Sample one("t1", 1);
  const auto size = one.payload.bytes().size() + one.source.size() + 8 + 12 * sizeof(float);
  MemoryStore small(clock_, size + 10);
  FaultyStore faulty(small);
  MemoryBank bank(faulty, clock_);
  faulty.fail_before(FaultyStore::Call::kPublish, 1, ErrorCode::kIo);
  EXPECT_ERROR(bank.publish_memory(one.draft, kNoDeadline), ErrorCode::kIo);
  EXPECT_EQ(payload_count(small), 3U);
  ASSERT_OK(bank.publish_memory(one.draft, kNoDeadline));
}

TEST_F(MemoryBankFaults, StatisticsThatCouldNotBeWrittenAreWrittenNextTime) {
  Sample sample("t1");
  ASSERT_OK(bank_.publish_memory(sample.draft, kNoDeadline));
  bank_.note_use(kSkerrow, 1.0);
  store_.fail_before(Call::kPublish, 2, ErrorCode::kIo);
  EXPECT_ERROR(bank_.flush_statistics(kNoDeadline), ErrorCode::kIo);
  ASSERT_OK(bank_.flush_statistics(kNoDeadline));
  EXPECT_EQ(MemoryBank(real_, clock_).statistics(kSkerrow, kNoDeadline).value(),
            (MemoryStatistics{1, 1, 1.0}));
}

TEST_F(MemoryBankFaults, ConcurrentWritersOfOneMemoryLoseNothing) {
  Sample first("first");
  ASSERT_OK(bank_.publish_memory(first.draft, kNoDeadline));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        Sample sample(std::string("w").append(std::to_string(t * 100 + i)), static_cast<float>(t));
        sample.expecting(bank_.head(kSkerrow, kNoDeadline).value().token);
        if (!bank_.publish_memory(sample.draft, kNoDeadline)) ADD_FAILURE();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto kept = bank_.history(kSkerrow, kNoDeadline).value().size() +
                    bank_.branches(kSkerrow, kNoDeadline).value().size();
  EXPECT_EQ(kept, 101U);
}

}  // namespace
}  // namespace memslot
