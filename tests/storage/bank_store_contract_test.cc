// The contract of BankStore, run over both implementations. This test is the definition.
#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "storage/bank_format.h"
#include "tests/storage/store_cases.h"
#include "tests/support/test_seed.h"

namespace memslot {
namespace {

std::span<const std::byte> B(std::string_view text) { return bytes_of(text); }

class BankStoreContract : public EachStore {};

TEST_P(BankStoreContract, MissingThingsAreNotFoundRatherThanEmpty) {
  const auto store = open();
  EXPECT_ERROR(store->head("absent", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(store->history("absent", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(store->get_payload("absent", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(store->erase("absent", "", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_ERROR(store->trim("absent", 1, kNoDeadline), ErrorCode::kNotFound);
  ASSERT_OK(store->erase_payload("absent", kNoDeadline));
  EXPECT_TRUE(store->list("", "", 10, kNoDeadline).value().entries.empty());
  EXPECT_TRUE(store->list_payloads("", 10, kNoDeadline).value().entries.empty());
}

TEST_P(BankStoreContract, APayloadIsImmutableAndAnEqualPutSucceedsAgain) {
  const auto store = open();
  ASSERT_OK(store->put_payload("t:p", B("abc"), kNoDeadline));
  ASSERT_OK(store->put_payload("t:p", B("abc"), kNoDeadline));
  EXPECT_ERROR(store->put_payload("t:p", B("abd"), kNoDeadline), ErrorCode::kConflict);
  EXPECT_TRUE(std::ranges::equal(store->get_payload("t:p", kNoDeadline).value(), B("abc")));
  EXPECT_EQ(store->usage(kNoDeadline).value().payload_bytes, 3U);
  ASSERT_OK(store->erase_payload("t:p", kNoDeadline));
  EXPECT_ERROR(store->get_payload("t:p", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_EQ(store->usage(kNoDeadline).value().payload_bytes, 0U);
}

TEST_P(BankStoreContract, PayloadsOfEverySizeComeBackWhole) {
  const auto store = open();
  std::mt19937 rng(test_seed());
  for (const std::size_t size : {0UL, 1UL, 1023UL, 1024UL, 1025UL, 300'000UL, 5'300'000UL}) {
    std::vector<std::byte> bytes(size);
    for (auto& b : bytes) b = static_cast<std::byte>(rng());
    const std::string token = "size-" + std::to_string(size);
    ASSERT_OK(store->put_payload(token, bytes, kNoDeadline));
    ASSERT_EQ(store->get_payload(token, kNoDeadline).value(), bytes) << size;
  }
}

TEST_P(BankStoreContract, PublishIsACompareAndSetOnTheHead) {
  const auto store = open();
  const auto first = store->publish("r", "", "a", "m1", kNoDeadline);
  ASSERT_OK(first);
  EXPECT_EQ(first.value(), (RecordVersion{"a", "", 1, "m1"}));
  EXPECT_ERROR(store->publish("r", "", "b", "m2", kNoDeadline), ErrorCode::kConflict);
  EXPECT_ERROR(store->publish("r", "x", "b", "m2", kNoDeadline), ErrorCode::kConflict);
  EXPECT_ERROR(store->publish("other", "a", "b", "m2", kNoDeadline), ErrorCode::kConflict);
  const auto second = store->publish("r", "a", "b", "m2", kNoDeadline);
  ASSERT_OK(second);
  EXPECT_EQ(second.value(), (RecordVersion{"b", "a", 2, "m2"}));
  EXPECT_EQ(store->head("r", kNoDeadline).value(), second.value());
  EXPECT_EQ(store->history("r", kNoDeadline).value(),
            (std::vector<RecordVersion>{first.value(), second.value()}));
}

TEST_P(BankStoreContract, ARetriedPublishSucceedsWhileItIsTheHeadAndConflictsAfterwards) {
  const auto store = open();
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));
  const auto again = store->publish("r", "", "a", "m", kNoDeadline);
  ASSERT_OK(again);
  EXPECT_EQ(again.value().number, 1U);
  ASSERT_OK(store->publish("r", "a", "b", "m", kNoDeadline));
  EXPECT_ERROR(store->publish("r", "", "a", "m", kNoDeadline), ErrorCode::kConflict);
  EXPECT_ERROR(store->publish("r", "b", "a", "m", kNoDeadline), ErrorCode::kConflict);
  EXPECT_EQ(store->history("r", kNoDeadline).value().size(), 2U);
}

TEST_P(BankStoreContract, AnErasedRecordIsGoneAndItsNumbersAreNeverReused) {
  const auto store = open();
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));
  ASSERT_OK(store->publish("r", "a", "b", "m", kNoDeadline));
  EXPECT_ERROR(store->erase("r", "a", kNoDeadline), ErrorCode::kConflict);
  ASSERT_OK(store->erase("r", "b", kNoDeadline));
  EXPECT_ERROR(store->head("r", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_TRUE(store->list("", "", 10, kNoDeadline).value().entries.empty());
  EXPECT_EQ(store->publish("r", "", "c", "m", kNoDeadline).value().number, 3U);
  EXPECT_EQ(store->history("r", kNoDeadline).value().size(), 1U);
}

TEST_P(BankStoreContract, TrimKeepsTheNewestVersions) {
  const auto store = open();
  std::string head;
  for (int i = 1; i <= 9; ++i) {
    const std::string token = "t" + std::to_string(i);
    ASSERT_OK(store->publish("r", head, token, "m", kNoDeadline));
    head = token;
  }
  ASSERT_OK(store->trim("r", 20, kNoDeadline));
  EXPECT_EQ(store->history("r", kNoDeadline).value().size(), 9U);
  ASSERT_OK(store->trim("r", 3, kNoDeadline));
  const auto left = store->history("r", kNoDeadline).value();
  ASSERT_EQ(left.size(), 3U);
  EXPECT_EQ(left.front().token, "t7");
  ASSERT_OK(store->trim("r", 1, kNoDeadline));
  EXPECT_EQ(store->head("r", kNoDeadline).value().token, "t9");
  EXPECT_ERROR(store->trim("r", 0, kNoDeadline), ErrorCode::kInvalidArgument);
}

TEST_P(BankStoreContract, IdsThatArePrefixesOfEachOtherDoNotMix) {
  const auto store = open();
  const std::vector<std::string> ids = {"a", "a/", "a/b", "ab", std::string("a\0b", 3), "\xff\xff"};
  for (const auto& id : ids) ASSERT_OK(store->publish(id, "", "t", "of " + id, kNoDeadline));
  for (const auto& id : ids) {
    const auto history = store->history(id, kNoDeadline).value();
    ASSERT_EQ(history.size(), 1U);
    EXPECT_EQ(history[0].metadata, "of " + id);
  }
  EXPECT_EQ(store->list("a/", "", 10, kNoDeadline).value().entries.size(), 2U);
  EXPECT_EQ(store->list("\xff", "", 10, kNoDeadline).value().entries.size(), 1U);
  ASSERT_OK(store->erase("a", "", kNoDeadline));
  EXPECT_EQ(store->list("", "", 10, kNoDeadline).value().entries.size(), ids.size() - 1);
}

TEST_P(BankStoreContract, BadArgumentsAreRefusedAndChangeNothing) {
  const auto store = open();
  const auto code = ErrorCode::kInvalidArgument;
  EXPECT_ERROR(store->publish("", "", "t", "", kNoDeadline), code);
  EXPECT_ERROR(store->publish(std::string(513, 'x'), "", "t", "", kNoDeadline), code);
  EXPECT_ERROR(store->publish("r", "", "", "", kNoDeadline), code);
  EXPECT_ERROR(store->publish("r", "", "a b", "", kNoDeadline), code);
  EXPECT_ERROR(store->publish("r", "", std::string(129, 't'), "", kNoDeadline), code);
  EXPECT_ERROR(store->publish("r", "", "t", std::string(kMaxMetadataBytes + 1, 'm'), kNoDeadline),
               code);
  EXPECT_ERROR(store->put_payload("a/b", B("x"), kNoDeadline), code);
  EXPECT_ERROR(store->put_payload("t", std::vector<std::byte>(kMaxBlobBytes + 1), kNoDeadline),
               code);
  EXPECT_ERROR(store->list("", "", 0, kNoDeadline), code);
  EXPECT_ERROR(store->list_payloads("", 1'000'000, kNoDeadline), code);
  EXPECT_ERROR(store->head("r", kNoDeadline), ErrorCode::kNotFound);
  EXPECT_EQ(store->usage(kNoDeadline).value().payload_bytes, 0U);
  ASSERT_OK(store->publish(std::string(512, 'x'), "", std::string(128, 't'),
                           std::string(kMaxMetadataBytes, 'm'), kNoDeadline));
}

TEST_P(BankStoreContract, APassedDeadlineIsATimeoutAndNothingIsWritten) {
  const auto store = open();
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));
  const auto past = clock_.now() - std::chrono::seconds(1);
  const auto code = ErrorCode::kTimeout;
  EXPECT_ERROR(store->put_payload("t", B("x"), past), code);
  EXPECT_ERROR(store->get_payload("t", past), code);
  EXPECT_ERROR(store->erase_payload("t", past), code);
  EXPECT_ERROR(store->list_payloads("", 1, past), code);
  EXPECT_ERROR(store->publish("r", "a", "b", "m", past), code);
  EXPECT_ERROR(store->head("r", past), code);
  EXPECT_ERROR(store->history("r", past), code);
  EXPECT_ERROR(store->list("", "", 1, past), code);
  EXPECT_ERROR(store->erase("r", "", past), code);
  EXPECT_ERROR(store->trim("r", 1, past), code);
  EXPECT_ERROR(store->usage(past), code);
  EXPECT_ERROR(store->compact(past), code);
  EXPECT_EQ(store->head("r", kNoDeadline).value().token, "a");
  EXPECT_ERROR(store->get_payload("t", kNoDeadline), ErrorCode::kNotFound);
  ASSERT_OK(store->head("r", clock_.now() + std::chrono::seconds(10)));
}

TEST_P(BankStoreContract, TheQuotaBoundsPayloadsAndErasingFreesIt) {
  const auto store = open({.quota_bytes = 10});
  ASSERT_OK(store->put_payload("a", B("123456"), kNoDeadline));
  EXPECT_ERROR(store->put_payload("b", B("12345"), kNoDeadline), ErrorCode::kNoSpace);
  ASSERT_OK(store->put_payload("c", B("1234"), kNoDeadline));
  ASSERT_OK(store->put_payload("c", B("1234"), kNoDeadline));  // stored already: takes no more
  EXPECT_ERROR(store->put_payload("d", B("1"), kNoDeadline), ErrorCode::kNoSpace);
  ASSERT_OK(store->publish("r", "", "t", "m", kNoDeadline));  // records go on
  ASSERT_OK(store->erase_payload("a", kNoDeadline));
  ASSERT_OK(store->put_payload("b", B("12345"), kNoDeadline));
  const auto usage = store->usage(kNoDeadline).value();
  EXPECT_EQ(usage.payload_bytes, 9U);
  EXPECT_EQ(usage.quota_bytes, 10U);
}

TEST_P(BankStoreContract, OfRacingWritersExactlyOneWinsEveryVersion) {
  const auto store = open();
  constexpr int kThreads = 4, kEach = 40;
  std::atomic<int> wins = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach;) {
        const auto head = store->head("r", kNoDeadline);
        const std::string expected = head ? head.value().token : "";
        const std::string token = std::to_string(t) + "-" + std::to_string(i);
        const auto done = store->publish("r", expected, token, "m", kNoDeadline);
        if (!done && done.error().code != ErrorCode::kConflict)
          ADD_FAILURE() << done.error().message;
        if (done) {
          ++wins;
          ++i;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto history = store->history("r", kNoDeadline).value();
  ASSERT_EQ(history.size(), static_cast<std::size_t>(kThreads * kEach));
  for (std::size_t i = 0; i < history.size(); ++i) {
    EXPECT_EQ(history[i].number, i + 1);
    EXPECT_EQ(history[i].parent, i == 0 ? "" : history[i - 1].token);
  }
  EXPECT_EQ(wins, kThreads * kEach);
}

TEST_P(BankStoreContract, ListingPagesWhileRecordsAreWritten) {
  const auto store = open();
  for (int i = 0; i < 60; ++i) {
    ASSERT_OK(store->publish("base/" + std::to_string(100 + i), "", "t", "m", kNoDeadline));
  }
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      const auto id = "base/" + std::to_string(100 + i % 60) + "-new" + std::to_string(i);
      if (!store->publish(id, "", "t", "m", kNoDeadline)) ADD_FAILURE() << id;
    }
  });
  for (int round = 0; round < 5; ++round) {
    std::vector<std::string> seen;
    std::string after;
    do {
      const auto page = store->list("base/", after, 7, kNoDeadline).value();
      EXPECT_LE(page.entries.size(), 7U);
      for (const auto& entry : page.entries) seen.push_back(entry.id);
      after = page.next;
    } while (!after.empty());
    EXPECT_TRUE(std::ranges::is_sorted(seen));
    EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
    const auto old = std::ranges::count_if(seen, [](const auto& id) { return id.size() == 8; });
    EXPECT_EQ(old, 60);  // what was there before is never missed
  }
  stop = true;
  writer.join();
}

TEST_P(BankStoreContract, CompactionChangesNothingThatCanBeRead) {
  const auto store = open();
  for (int i = 0; i < 20; ++i) {
    const auto token = "t" + std::to_string(i);
    ASSERT_OK(
        store->put_payload(token, B(std::string(5000, static_cast<char>('a' + i))), kNoDeadline));
    if (i % 2 == 0) {
      ASSERT_OK(store->erase_payload(token, kNoDeadline));
    }
  }
  ASSERT_OK(store->publish("r", "", "a", "m", kNoDeadline));
  ASSERT_OK(store->compact(kNoDeadline));
  EXPECT_EQ(store->list_payloads("", 100, kNoDeadline).value().entries.size(), 10U);
  EXPECT_TRUE(
      std::ranges::equal(store->get_payload("t7", kNoDeadline).value(), B(std::string(5000, 'h'))));
  EXPECT_EQ(store->head("r", kNoDeadline).value().token, "a");
}

// Property: any sequence of operations leaves the store equal to a few maps.
TEST_P(BankStoreContract, AgreesWithAModelUnderRandomOperations) {
  const auto seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  const auto store = open();
  std::map<std::string, std::string> payloads;
  std::map<std::string, std::vector<RecordVersion>> records;  // live ones
  std::map<std::string, std::uint64_t> last;
  for (int step = 0; step < 1500; ++step) {
    SCOPED_TRACE(step);
    const std::string id = "r" + std::to_string(rng() % 8);  // few ids: force overwrites
    const std::string token = "t" + std::to_string(rng() % 40);
    auto& live = records[id];
    switch (rng() % 8) {
      case 0: {
        const std::string value(rng() % 3000, static_cast<char>(rng() % 256));
        const bool fits = !payloads.contains(token) || payloads[token] == value;
        ASSERT_EQ(store->put_payload(token, B(value), kNoDeadline).has_value(), fits);
        payloads.try_emplace(token, value);
        break;
      }
      case 1: {
        const auto got = store->get_payload(token, kNoDeadline);
        ASSERT_EQ(got.has_value(), payloads.contains(token));
        if (got) {
          ASSERT_TRUE(std::ranges::equal(got.value(), B(payloads[token])));
        }
        break;
      }
      case 2:
        ASSERT_OK(store->erase_payload(token, kNoDeadline));
        payloads.erase(token);
        break;
      case 3:
      case 4:
      case 5: {
        const std::string head = live.empty() ? "" : live.back().token;
        const std::string expected = rng() % 4 == 0 ? "wrong" : head;
        const auto used = std::ranges::find(live, token, &RecordVersion::token) != live.end();
        const auto done =
            store->publish(id, expected, token, "m" + std::to_string(step), kNoDeadline);
        if (!live.empty() && head == token) {
          ASSERT_OK(done);
          ASSERT_EQ(done.value(), live.back());
        } else if (expected != head || used) {
          EXPECT_ERROR(done, ErrorCode::kConflict);
        } else {
          ASSERT_OK(done);
          live.push_back({token, head, ++last[id], "m" + std::to_string(step)});
          ASSERT_EQ(done.value(), live.back());
        }
        break;
      }
      case 6:
        if (rng() % 3 == 0) {
          ASSERT_EQ(store->erase(id, "", kNoDeadline).has_value(), !live.empty());
          live.clear();
        } else if (rng() % 3 == 0) {
          const std::size_t keep = 1 + rng() % 3;
          ASSERT_EQ(store->trim(id, keep, kNoDeadline).has_value(), !live.empty());
          while (live.size() > keep) live.erase(live.begin());
        }
        break;
      default: {
        const auto history = store->history(id, kNoDeadline);
        ASSERT_EQ(history.has_value(), !live.empty());
        if (history) {
          ASSERT_EQ(history.value(), live);
        }
      }
    }
  }
  std::vector<std::string> expected_ids, found_ids;
  for (const auto& [id, live] : records) {
    if (!live.empty()) expected_ids.push_back(id);
  }
  const auto listed = store->list("", "", 100, kNoDeadline);
  for (const auto& entry : listed.value().entries) {
    found_ids.push_back(entry.id);
    EXPECT_EQ(entry.head, records[entry.id].back());
  }
  EXPECT_EQ(found_ids, expected_ids);
  std::uint64_t bytes = 0;
  for (const auto& [token, value] : payloads) bytes += value.size();
  EXPECT_EQ(store->usage(kNoDeadline).value().payload_bytes, bytes);
  EXPECT_EQ(store->list_payloads("", 100, kNoDeadline).value().entries.size(), payloads.size());
}

MEMSLOT_EACH_STORE(BankStoreContract);

TEST(BankFormat, TheEndOfAPrefixIsTheLeastGreaterString) {
  EXPECT_EQ(bank_format::after_prefix("ab"), "ac");
  EXPECT_EQ(bank_format::after_prefix("a\xff"), "b");
  EXPECT_EQ(bank_format::after_prefix("\xff\xff"), "");
}

TEST(BankFormat, StoredValuesRefuseEveryTruncationAndTrailingBytes) {
  const RecordVersion version{"token", "parent", 7, "metadata"};
  const auto good = bank_format::encode_version(version);
  EXPECT_EQ(bank_format::decode_version(good).value(), version);
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_ERROR(bank_format::decode_version(good.substr(0, n)), ErrorCode::kCorruption);
  }
  EXPECT_ERROR(bank_format::decode_version(good + "x"), ErrorCode::kCorruption);
  const auto entry = bank_format::encode_payload_entry({5, 6, {7, 8}});
  EXPECT_EQ(bank_format::decode_payload_entry(entry).value().digest, (Xxh128{7, 8}));
  EXPECT_ERROR(bank_format::decode_payload_entry(entry.substr(1)), ErrorCode::kCorruption);
}

TEST(NewToken, IsValidUniqueAndSortsByTime) {
  ManualClock clock;
  clock.advance(std::chrono::hours(24) * 365 * 50);
  const auto a = new_token(clock), b = new_token(clock);
  EXPECT_NE(a, b);
  EXPECT_TRUE(bank_format::check_token(a));
  clock.advance(std::chrono::milliseconds(1));
  EXPECT_LT(std::max(a, b), new_token(clock));
}

}  // namespace
}  // namespace memslot
