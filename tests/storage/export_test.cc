// Export files: there and back, and everything that can be wrong with one.
#include <cstring>

#include "tests/storage/memory_samples.h"

namespace memslot {
namespace {

class ExportTest : public testing::Test {
 protected:
  ExportTest() {
    Sample sample("t1", 3);
    EXPECT_TRUE(bank_.publish_memory(sample.draft, kNoDeadline));
    file_ = bank_.export_memory(kSkerrow, kNoDeadline).value();
  }
  // A file whose digest is right but whose contents were changed.
  static std::vector<std::byte> resigned(std::vector<std::byte> file) {
    const auto digest = sha256(std::span(file).first(file.size() - 32));
    std::memcpy(file.data() + file.size() - 32, digest.bytes.data(), 32);
    return file;
  }
  SystemClock clock_;
  MemoryStore store_{clock_};
  MemoryBank bank_{store_, clock_};
  MemoryStore other_store_{clock_};
  MemoryBank other_{other_store_, clock_};
  std::vector<std::byte> file_;
};

TEST_F(ExportTest, AnImportedMemoryIsTheSameInAnotherBank) {
  const auto imported = other_.import_memory(file_, "guest", "", kNoDeadline);
  ASSERT_OK(imported);
  const auto original = bank_.head(kSkerrow, kNoDeadline).value();
  const auto& version = imported.value();
  EXPECT_EQ(version.ref.text(), "guest/skerrow@1");
  EXPECT_EQ(version.origin, VersionOrigin::kImported);
  EXPECT_EQ(version.origin_id, "default/skerrow@1 t1");
  EXPECT_EQ(version.sha256, original.sha256);
  EXPECT_EQ(version.signature, original.signature);
  EXPECT_EQ(version.stats, original.stats);
  EXPECT_TRUE(std::ranges::equal(other_.load_payload(version, kNoDeadline).value().bytes(),
                                 bank_.load_payload(original, kNoDeadline).value().bytes()));
  EXPECT_EQ(other_.load_keys(version, kNoDeadline).value().values,
            bank_.load_keys(original, kNoDeadline).value().values);
  EXPECT_EQ(other_.load_source(version, kNoDeadline).value(), "The light at Skerrow was lit in 3");
}

TEST_F(ExportTest, ImportingTheSameVersionAgainChangesNothing) {
  const auto first = other_.import_memory(file_, "guest", "", kNoDeadline).value();
  EXPECT_EQ(other_.import_memory(file_, "guest", "", kNoDeadline).value(), first);
  Sample next("t2", 4);
  next.draft.meta.ref.ns = "guest";
  ASSERT_OK(other_.publish_memory(next.expecting(first.token).draft, kNoDeadline));
  EXPECT_EQ(other_.import_memory(file_, "guest", "", kNoDeadline).value(), first);
  EXPECT_EQ(other_.history({"guest", "skerrow", 0}, kNoDeadline).value().size(), 2U);
}

TEST_F(ExportTest, AnImportGoesOnTopOfWhatIsThereAndUnderAnyName) {
  const auto copy = bank_.import_memory(file_, "default", "skerrow-copy", kNoDeadline).value();
  EXPECT_EQ(copy.ref.text(), "default/skerrow-copy@1");
  Sample next("t2", 4);
  ASSERT_OK(bank_.publish_memory(next.expecting("t1").draft, kNoDeadline));
  const auto on_top = bank_.import_memory(file_, "default", "", kNoDeadline).value();
  EXPECT_EQ(on_top.ref.version, 3U);
  EXPECT_EQ(on_top.parent, "t2");
  EXPECT_ERROR(bank_.import_memory(file_, "default", "Bad Name", kNoDeadline),
               ErrorCode::kInvalidArgument);
}

TEST_F(ExportTest, AnErasedMemoryCanBeImportedAgain) {
  ASSERT_OK(other_.import_memory(file_, "guest", "", kNoDeadline));
  ASSERT_OK(other_.erase({"guest", "skerrow", 0}, kNoDeadline));
  EXPECT_EQ(other_.import_memory(file_, "guest", "", kNoDeadline).value().ref.version, 2U);
}

TEST_F(ExportTest, AMemoryWithoutKeysAndSourceExportsToo) {
  Sample bare("t9", 1, "bare");
  bare.draft.keys = nullptr;
  bare.draft.source_text.reset();
  ASSERT_OK(bank_.publish_memory(bare.draft, kNoDeadline));
  const auto file = bank_.export_memory({"default", "bare", 1}, kNoDeadline).value();
  EXPECT_EQ(other_.import_memory(file, "guest", "", kNoDeadline).value().keys, 0U);
}

TEST_F(ExportTest, EveryTruncationAndEveryFlippedByteIsRefused) {
  for (std::size_t n = 0; n < file_.size(); ++n) {
    const std::span<const std::byte> cut(file_.data(), n);
    ASSERT_FALSE(other_.import_memory(cut, "guest", "", kNoDeadline)) << n;
  }
  for (std::size_t i = 0; i < file_.size(); ++i) {
    auto bad = file_;
    bad[i] ^= std::byte{1};
    const auto result = other_.import_memory(bad, "guest", "", kNoDeadline);
    ASSERT_FALSE(result) << i;
    const bool format = i >= 4 && i < 8;
    EXPECT_EQ(result.error().code, format ? ErrorCode::kNotSupported : ErrorCode::kCorruption) << i;
  }
  EXPECT_EQ(payload_count(other_store_), 0U);
}

TEST_F(ExportTest, ARightDigestDoesNotExcuseWrongContents) {
  auto longer = file_;
  longer.insert(longer.end() - 32, std::byte{0});
  EXPECT_ERROR(other_.import_memory(resigned(longer), "guest", "", kNoDeadline),
               ErrorCode::kCorruption);
  auto huge = file_;
  std::memset(huge.data() + 16, 0xff, 8);  // the payload's length
  EXPECT_ERROR(other_.import_memory(resigned(huge), "guest", "", kNoDeadline),
               ErrorCode::kCorruption);
  auto manifest = file_;
  manifest[40] = std::byte{'['};
  EXPECT_ERROR(other_.import_memory(resigned(manifest), "guest", "", kNoDeadline),
               ErrorCode::kCorruption);
  auto payload = file_;
  const std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
  const auto at = text.find("MSM1");
  ASSERT_NE(at, text.npos);
  payload[at + 200] ^= std::byte{1};  // not what the manifest's SHA-256 says
  EXPECT_ERROR(other_.import_memory(resigned(payload), "guest", "", kNoDeadline),
               ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot
