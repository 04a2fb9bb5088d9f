#include "controller/trace/trace_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

const auto kAll = [](const std::vector<std::string>&) { return true; };

trace::NamedMemory memory(const std::string& id) { return {{"default", id, 1}, {}}; }

std::string bytes_at(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct TraceStoreTest : testing::Test {
  const testing_support::TemporaryFolder folder;
  ManualClock clock;
  std::uint64_t sequence = 0;
  std::unique_ptr<TraceStore> store = open();

  TraceStoreTest() { clock.advance(std::chrono::hours(1000)); }
  std::unique_ptr<TraceStore> open(TraceLimits limits = {}) {
    auto out = std::make_unique<TraceStore>(folder.path() + "/traces", limits, clock);
    const Status loaded = out->load();
    EXPECT_TRUE(loaded.has_value());
    return out;
  }
  std::string path(std::uint64_t session) const {
    return folder.path() + "/traces/" + trace::trace_id(session) + ".trace";
  }
  trace::Start start(std::uint64_t session, std::vector<std::string> namespaces = {"default"}) {
    trace::Start out;
    out.session = session;
    out.created_unix_ms = clock.unix_ms();
    out.namespaces = std::move(namespaces);
    out.policy = "nearest:0.3";
    out.prompt = {1};
    out.prompt_text = "Once";
    return out;
  }
  static trace::Step step(std::uint64_t number, const std::string& id) {
    trace::Step out;
    out.step = number;
    out.active = {{0, memory(id), wire::ActiveReason::kDirective}};
    out.tokens = {1, 2};
    out.log_probs = {-1, -2};
    return out;
  }
  static std::vector<std::byte> frames(trace::Writer writer,
                                       const std::vector<trace::Event>& events) {
    trace::Encoder encoder(writer);
    for (const trace::Event& event : events) encoder.add(event);
    return encoder.take();
  }
  Status append(std::uint64_t session, const std::vector<trace::Event>& events) {
    return store->take(session, ++sequence, frames(trace::Writer::kGenerator, events), kAll);
  }
  std::vector<std::string> ids(const TraceQuery& query) const {
    std::vector<std::string> out;
    for (const TraceSummary& one : store->list(query)) out.push_back(one.id);
    return out;
  }
  static TraceQuery all() {
    TraceQuery query;
    query.visible = kAll;
    return query;
  }
  // `count` traces, each a minute after the one before, ended.
  void fill(std::uint64_t count) {
    for (std::uint64_t i = 1; i <= count; ++i) {
      clock.advance(std::chrono::minutes(1));
      ASSERT_TRUE(append(
          i, {start(i), step(0, i % 2 == 0 ? "m0" : "m1"), trace::End{"length", "", 0, 0, 0, 0}}));
    }
  }
};

TEST_F(TraceStoreTest, WhatIsAppendedIsThereAfterARestart) {
  ASSERT_TRUE(append(7, {start(7), step(0, "ferry")}));
  ASSERT_TRUE(append(7, {step(1, "baker"), trace::End{"stop", "", 0, 0, 0, 0}}));
  for (int again = 0; again < 2; ++again) {
    const auto summary = store->summary(trace::trace_id(7));
    ASSERT_TRUE(summary.has_value());
    EXPECT_EQ(summary.value().steps, 2u);
    EXPECT_EQ(summary.value().tokens, 4u);
    EXPECT_EQ(summary.value().memories, (std::set<std::string>{"default/baker", "default/ferry"}));
    EXPECT_TRUE(summary.value().ended);
    EXPECT_EQ(summary.value().finish, "stop");
    EXPECT_EQ(summary.value().bytes, std::filesystem::file_size(path(7)));
    const auto trace = trace::read_trace(store->bytes(trace::trace_id(7)).value());
    ASSERT_TRUE(trace.has_value());
    EXPECT_EQ(trace.value().steps.size(), 2u);
    store = open();
  }
}

TEST_F(TraceStoreTest, WhatACrashCutOffIsCutAwayBeforeMoreIsAppended) {
  ASSERT_TRUE(append(7, {start(7), step(0, "ferry")}));
  const auto whole = std::filesystem::file_size(path(7));
  ASSERT_TRUE(append(7, {step(1, "ferry")}));
  store.reset();
  std::filesystem::resize_file(path(7), whole + 20);
  store = open();
  EXPECT_EQ(store->summary(trace::trace_id(7)).value().steps, 1u);
  ASSERT_TRUE(append(7, {step(1, "ferry"), step(2, "ferry")}));
  const auto trace = trace::read_trace(store->bytes(trace::trace_id(7)).value());
  ASSERT_TRUE(trace.has_value());
  EXPECT_FALSE(trace.value().damage.has_value());
  EXPECT_EQ(trace.value().steps.size(), 3u);
}

TEST_F(TraceStoreTest, FramesThatDoNotDecodeChangeNothing) {
  ASSERT_TRUE(append(7, {start(7), step(0, "ferry")}));
  const auto before = bytes_at(path(7));
  auto bad = frames(trace::Writer::kGenerator, {step(1, "ferry"), step(2, "ferry")});
  bad[bad.size() - 5] ^= std::byte{1};
  const auto refused = store->take(7, ++sequence, bad, kAll);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCorruption);
  EXPECT_EQ(bytes_at(path(7)), before);
  EXPECT_EQ(store->summary(trace::trace_id(7)).value().steps, 1u);
}

// A generator spells its memories in every message, so that a lost one costs only itself.
TEST_F(TraceStoreTest, WhatWasLostCostsOnlyItself) {
  trace::Encoder encoder(trace::Writer::kGenerator);
  const auto batch = [&](const std::vector<trace::Event>& events) {
    for (const trace::Event& event : events) encoder.add(event);
    return encoder.take_and_forget();
  };
  const auto keep = [&](const std::vector<std::byte>& bytes) {
    return store->take(7, ++sequence, bytes, kAll).has_value();
  };
  EXPECT_TRUE(keep(batch({start(7)})));
  batch({step(0, "ferry")});  // lost
  EXPECT_TRUE(keep(batch({step(1, "ferry"), step(2, "baker")})));
  store = open();
  EXPECT_TRUE(keep(batch({step(3, "ferry")})));
  const auto trace = trace::read_trace(store->bytes(trace::trace_id(7)).value());
  ASSERT_TRUE(trace.has_value());
  EXPECT_FALSE(trace.value().damage.has_value());
  EXPECT_EQ(trace.value().steps.size(), 3u);
}

TEST_F(TraceStoreTest, WhatIsSentAgainIsNotStoredTwice) {
  const auto first = frames(trace::Writer::kGenerator, {start(7), step(0, "ferry")});
  ASSERT_TRUE(store->take(7, 1, first, kAll));
  const auto before = bytes_at(path(7));
  ASSERT_TRUE(store->take(7, 1, first, kAll));
  EXPECT_EQ(bytes_at(path(7)), before);
}

TEST_F(TraceStoreTest, FilesAreForThisUserOnly) {
  fill(1);
  const std::string copy = folder.path() + "/copy", again = folder.path() + "/again";
  EXPECT_EQ(store->copy_to(copy).value(), 1u);
  EXPECT_EQ(restore_traces(copy, again).value(), 1u);
  for (const std::string& where : {folder.path() + "/traces", copy, again}) {
    const auto mode = [](const std::string& of) {
      return std::filesystem::status(of).permissions();
    };
    using std::filesystem::perms;
    EXPECT_EQ(mode(where), perms::owner_all);
    EXPECT_EQ(mode(where + "/" + trace::trace_id(1) + ".trace"),
              perms::owner_read | perms::owner_write);
  }
}

TEST_F(TraceStoreTest, NobodyWritesForAnother) {
  ASSERT_TRUE(append(7, {start(7)}));
  // A generator that decides, and one that says it is the controller.
  trace::Decision decision;
  decision.candidates.resize(1);
  EXPECT_EQ(append(7, {decision}).error().code, ErrorCode::kCorruption);
  EXPECT_EQ(
      store->take(7, ++sequence, frames(trace::Writer::kController, {decision}), kAll).error().code,
      ErrorCode::kCorruption);
  // Another session's trace, and one that never began.
  EXPECT_EQ(append(8, {start(9)}).error().code, ErrorCode::kMismatch);
  EXPECT_EQ(append(8, {step(0, "ferry")}).error().code, ErrorCode::kNotFound);
  // Into a namespace that its generator does not see.
  const auto none = [](const std::vector<std::string>&) { return false; };
  EXPECT_EQ(
      store->take(8, ++sequence, frames(trace::Writer::kGenerator, {start(8, {"secret"})}), none)
          .error()
          .code,
      ErrorCode::kPermission);
  EXPECT_FALSE(std::filesystem::exists(path(8)));
  EXPECT_EQ(ids(all()), (std::vector<std::string>{trace::trace_id(7)}));
}

TEST_F(TraceStoreTest, IsListedNewestFirstPageByPageAndSearched) {
  fill(5);
  ASSERT_TRUE(append(9, {start(9, {"secret"})}));
  TraceQuery query = all();
  query.visible = [](const auto& namespaces) { return namespaces[0] == "default"; };
  query.limit = 2;
  EXPECT_EQ(ids(query), (std::vector{trace::trace_id(5), trace::trace_id(4)}));
  query.after = trace::trace_id(4);
  EXPECT_EQ(ids(query), (std::vector{trace::trace_id(3), trace::trace_id(2)}));
  query = all();
  query.memories = [](const auto& used) { return used.contains("default/m0"); };
  EXPECT_EQ(ids(query), (std::vector{trace::trace_id(4), trace::trace_id(2)}));
  query = all();
  query.policy = "learned";
  EXPECT_TRUE(ids(query).empty());
  query.policy = "nearest";
  query.since_unix_ms = store->summary(trace::trace_id(3)).value().created_unix_ms;
  query.until_unix_ms = store->summary(trace::trace_id(5)).value().created_unix_ms;
  EXPECT_EQ(ids(query), (std::vector{trace::trace_id(4), trace::trace_id(3)}));
}

TEST_F(TraceStoreTest, ARemovedMemorysTracesAreGone) {
  fill(5);
  EXPECT_EQ(store->forget({"default", "m1", 0}), 3u);
  EXPECT_EQ(ids(all()), (std::vector{trace::trace_id(4), trace::trace_id(2)}));
  EXPECT_FALSE(std::filesystem::exists(path(1)));
  // What was on its way when the memory went does not bring it back.
  ASSERT_TRUE(append(20, {start(20)}));
  EXPECT_EQ(append(20, {step(0, "m1")}).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(path(20)));
  clock.advance(std::chrono::minutes(1));
  ASSERT_TRUE(append(21, {start(21), step(0, "m1")}));  // learned anew
  ASSERT_TRUE(store->erase(trace::trace_id(21)));
  ASSERT_TRUE(store->erase(trace::trace_id(2)));
  EXPECT_EQ(store->erase(trace::trace_id(2)).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->bytes(trace::trace_id(2)).error().code, ErrorCode::kNotFound);
}

TEST_F(TraceStoreTest, TheOldestGoByAgeAndBySizeThoseUnderWayLast) {
  ASSERT_TRUE(append(100, {start(100)}));  // the oldest, under way
  fill(5);
  const std::uint64_t each = store->summary(trace::trace_id(1)).value().bytes;
  const std::uint64_t open_one = store->summary(trace::trace_id(100)).value().bytes;
  store = open({.bytes = 3 * each + open_one, .age = std::chrono::hours(1)});
  EXPECT_EQ(ids(all()), (std::vector{trace::trace_id(5), trace::trace_id(4), trace::trace_id(3),
                                     trace::trace_id(100)}));
  clock.advance(std::chrono::minutes(59));  // the one under way and the third are over an hour old
  store->keep_limits();
  EXPECT_EQ(ids(all()), (std::vector{trace::trace_id(5), trace::trace_id(4)}));
}

TEST_F(TraceStoreTest, WhatIsNoTraceIsLeftAlone) {
  ASSERT_TRUE(append(7, {start(7)}));
  const std::string other = folder.path() + "/traces/000000000000000b.trace";
  std::ofstream(other) << "not a trace";
  std::ofstream(folder.path() + "/traces/notes.txt") << "mine";
  store = open();
  EXPECT_EQ(ids(all()), (std::vector<std::string>{trace::trace_id(7)}));
  EXPECT_TRUE(std::filesystem::exists(other));
}

TEST_F(TraceStoreTest, AFolderThatCannotBeMadeIsSaidAtTheStart) {
  std::ofstream(folder.path() + "/file") << "x";
  TraceStore bad(folder.path() + "/file/traces", {}, clock);
  EXPECT_FALSE(bad.load().has_value());
}

}  // namespace
}  // namespace memslot
