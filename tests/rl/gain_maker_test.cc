// Pieces of memslot-gains: exported memories, a stream's rows, the choice of candidates.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "rl/gains/exported_memory.h"
#include "rl/gains/make_table.h"
#include "rl/gains/stream_rows.h"
#include "shared/base/base64.h"
#include "tests/support/temporary_folder.h"

namespace memslot::gains_program {
namespace {

using nlohmann::json;

std::vector<std::byte> exported(const MemoryKeys& keys) {
  MemoryVersion v;
  v.ref = {"default", "a", 1};
  v.token = "t";
  const std::string manifest = to_json(v), payload = "payload";
  std::vector<std::byte> out;
  const auto add = [&](std::span<const std::byte> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  const std::uint32_t rows = keys.rows(), format = 1;
  const std::uint64_t key_bytes = 8 + 4 * keys.values.size();
  const std::uint64_t sizes[] = {manifest.size(), payload.size(), key_bytes, 0};
  add(bytes_of("MSE1"));
  add(std::as_bytes(std::span(&format, 1)));
  add(std::as_bytes(std::span(sizes)));
  add(bytes_of(manifest));
  add(bytes_of(payload));
  add(std::as_bytes(std::span(&keys.dim, 1)));
  add(std::as_bytes(std::span(&rows, 1)));
  add(std::as_bytes(std::span(keys.values)));
  const Sha256 digest = sha256(out);
  add(std::as_bytes(std::span(digest.bytes)));
  return out;
}

TEST(ExportedMemory, ItsVersionAndKeysAreRead) {
  const MemoryKeys keys{2, {1, 2, 3, 4, 5, 6}};
  const auto read = read_export(exported(keys));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read.value().version.ref.text(), "default/a@1");
  EXPECT_EQ(read.value().keys.values, keys.values);
  EXPECT_EQ(read.value().keys.rows(), 3u);
}

TEST(ExportedMemory, KeysWithoutARowAreCorrupt) { EXPECT_FALSE(read_export(exported({2, {}}))); }

TEST(ExportedMemory, AnyChangedOrMissingByteIsCorrupt) {
  const auto whole = exported({2, {1, 2}});
  for (std::size_t n = 0; n < whole.size(); ++n) {
    EXPECT_FALSE(read_export(std::span(whole).first(n))) << n;
    auto changed = whole;
    changed[n] ^= std::byte{1};
    EXPECT_FALSE(read_export(changed)) << n;
  }
}

json rows_event(std::size_t first, std::size_t memories, std::size_t steps) {
  const std::vector<float> values(memories * steps, static_cast<float>(first));
  const std::string text = floats_to_base64(values);
  return {{"type", "rows"},   {"first", first},  {"memories", std::vector<std::string>(memories)},
          {"surprise", text}, {"entropy", text}, {"activation", text}};
}
json hidden_event(std::size_t first, std::size_t rows) {
  return {{"type", "hidden"},
          {"first", first},
          {"rows", rows},
          {"values", floats_to_base64(std::vector<float>(rows * 2, 0.5f))}};
}
const json kLast = {{"type", "gains"}};

TEST(StreamRows, ArePutTogetherFromEventsAndKept) {
  RowCollector collector(3, 4);
  collector.take(hidden_event(0, 3));
  collector.take(rows_event(0, 2, 3));
  collector.take(hidden_event(0, 2));  // the controller was restarted, and the task with it
  collector.take(hidden_event(2, 1));
  collector.take(rows_event(0, 1, 3));
  collector.take(rows_event(1, 3, 3));
  const auto rows = collector.finish(kLast);
  ASSERT_TRUE(rows) << rows.error().message;
  EXPECT_EQ(rows.value().dim, 2u);
  EXPECT_EQ(rows.value().surprise[4], 1.0f);
  testing_support::TemporaryFolder folder;
  const std::string path = folder.path() + "/rows";
  ASSERT_TRUE(rows.value().save(path, "digest"));
  const auto kept = StreamRows::load(path, "digest");
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept.value().surprise, rows.value().surprise);
  EXPECT_EQ(kept.value().hidden, rows.value().hidden);
  EXPECT_EQ(StreamRows::load(path, "another").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(StreamRows::load(folder.path() + "/none", "digest").error().code, ErrorCode::kNotFound);
}

TEST(StreamRows, EventsThatAreMissingOrDoNotFitAreCorrupt) {
  const auto refused = [](const std::vector<json>& events) {
    RowCollector collector(2, 2);
    for (const json& event : events) collector.take(event);
    const auto rows = collector.finish(kLast);
    ASSERT_FALSE(rows);
    EXPECT_EQ(rows.error().code, ErrorCode::kCorruption) << rows.error().message;
  };
  refused({hidden_event(0, 2), rows_event(0, 1, 2)});
  refused({rows_event(0, 2, 2)});
  refused({hidden_event(0, 2), rows_event(1, 1, 2)});
  refused({hidden_event(0, 2), rows_event(0, 3, 2)});
  refused({hidden_event(0, 2), rows_event(0, 2, 1)});
  refused({hidden_event(1, 1), rows_event(0, 2, 2)});
  refused({hidden_event(0, 2), {{"type", "rows"}}});
  json bad = rows_event(0, 2, 2);
  bad["entropy"] = "?";
  refused({hidden_event(0, 2), bad});
  bad["entropy"] = floats_to_base64(std::vector<float>(4, NAN));
  refused({hidden_event(0, 2), bad});
}

TEST(Candidates, AreThoseThatMustBeAndTheNearestOfEveryStepInTurns) {
  // Step 0 is near 5, 6, 7, ...; step 1 near 9, 8, 7, ...
  const auto similar = [](std::size_t step, std::size_t m) {
    const auto x = static_cast<float>(m);
    return step == 0 ? (m < 5 ? -x : 10 - x) : x;
  };
  using Places = std::vector<std::uint32_t>;
  EXPECT_EQ(nearest_candidates(10, 2, 4, {0, 2}, similar), (Places{0, 2, 5, 9}));
  EXPECT_EQ(nearest_candidates(10, 2, 6, {0, 2}, similar), (Places{0, 2, 5, 6, 8, 9}));
  EXPECT_EQ(nearest_candidates(10, 2, 1, {0, 2}, similar), (Places{0, 2}));
  EXPECT_EQ(nearest_candidates(3, 2, 50, {}, similar), (Places{0, 1, 2}));
}

}  // namespace
}  // namespace memslot::gains_program
