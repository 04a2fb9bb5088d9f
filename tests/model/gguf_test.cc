#include "generator/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/gguf_bytes.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using testing::HasSubstr;
using testing_support::GgufBytes;
using testing_support::put_bytes;

std::span<const std::byte> view(const std::string& bytes) {
  return std::as_bytes(std::span(bytes));
}

GgufBytes small_file() {
  GgufBytes file;
  file.text("name", "tiny").u32("count", 7).f32("eps", 0.5f).flag("on", true);
  file.texts("words", {"a", "", "ccc"}).i32s("numbers", {-1, 0, 5});
  file.f32_tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6}).f32_tensor("b", {1}, {9});
  return file;
}

TEST(Gguf, ReadsValuesAndTensorsOfBothVersions) {
  for (const std::uint32_t version : {2U, 3U}) {
    auto file = small_file();
    file.version = version;
    const auto bytes = file.build();
    const auto index = GgufIndex::parse(view(bytes));
    ASSERT_TRUE(index) << index.error().message;
    const auto& i = index.value();
    EXPECT_EQ(i.version, version);
    EXPECT_EQ(i.text("name").value(), "tiny");
    EXPECT_EQ(i.integer("count").value(), 7);
    EXPECT_EQ(i.real("eps").value(), 0.5);
    EXPECT_EQ(*i.find<bool>("on"), true);
    EXPECT_EQ(*i.find<std::vector<std::string>>("words"),
              (std::vector<std::string>{"a", "", "ccc"}));
    EXPECT_EQ(*i.find<std::vector<std::int64_t>>("numbers"), (std::vector<std::int64_t>{-1, 0, 5}));
    const auto tensor = read_f32(view(bytes), i.tensors.at("a"));
    ASSERT_TRUE(tensor);
    EXPECT_EQ(tensor.value().shape, (Shape{2, 3}));
    EXPECT_EQ(tensor.value().values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  }
}

TEST(Gguf, ReadsEveryScalarWidth) {
  GgufBytes file;
  file.scalar("u8", 0, std::uint8_t{200}).scalar("i8", 1, std::int8_t{-3});
  file.scalar("u16", 2, std::uint16_t{60000}).scalar("i16", 3, std::int16_t{-300});
  file.scalar("i32", 5, std::int32_t{-70000}).scalar("u64", 10, std::uint64_t{1} << 40);
  file.scalar("i64", 11, std::int64_t{-1}).scalar("f64", 12, 0.25);
  const auto bytes = file.build();
  const auto index = GgufIndex::parse(view(bytes));
  ASSERT_TRUE(index) << index.error().message;
  const std::vector<std::pair<const char*, std::int64_t>> expected{
      {"u8", 200},   {"i8", -3},      {"u16", 60000},
      {"i16", -300}, {"i32", -70000}, {"u64", std::int64_t{1} << 40},
      {"i64", -1}};
  for (const auto& [key, value] : expected)
    EXPECT_EQ(index.value().integer(key).value(), value) << key;
  EXPECT_EQ(index.value().real("f64").value(), 0.25);
}

TEST(Gguf, AskedForAnAbsentKeyOrAnotherTypeSaysSo) {
  const auto bytes = small_file().build();
  const auto index = GgufIndex::parse(view(bytes)).value();
  EXPECT_EQ(index.integer("absent").error().message,
            "gguf key 'absent': expected an integer, found none");
  EXPECT_EQ(index.integer("name").error().message,
            "gguf key 'name': expected an integer, found another type");
  EXPECT_EQ(index.find<bool>("name"), nullptr);
}

struct BadFile {
  const char* name;
  ErrorCode code;
  const char* message;
  std::string (*make)();
};
class BadGguf : public testing::TestWithParam<BadFile> {};

TEST_P(BadGguf, IsRefusedWithItsReason) {
  const auto bytes = GetParam().make();
  const auto index = GgufIndex::parse(view(bytes));
  ASSERT_FALSE(index);
  EXPECT_EQ(index.error().code, GetParam().code);
  EXPECT_THAT(index.error().message, HasSubstr(GetParam().message));
}

std::string changed(void (*change)(GgufBytes&)) {
  auto file = small_file();
  change(file);
  return file.build();
}

std::string with_u64_at(std::size_t at, std::uint64_t value) {
  auto bytes = small_file().build();
  std::memcpy(bytes.data() + at, &value, 8);
  return bytes;
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadGguf,
    testing::Values(
        BadFile{"TooShort", ErrorCode::kCorruption, "gguf bytes: expected at least 24, found 3",
                [] { return std::string("GGU"); }},
        BadFile{"WrongMagic", ErrorCode::kCorruption, "gguf magic: expected 'GGUF'",
                [] { return changed([](GgufBytes& f) { f.magic = "GGML"; }); }},
        BadFile{"OldVersion", ErrorCode::kNotSupported, "gguf version: expected 2 or 3, found 1",
                [] { return changed([](GgufBytes& f) { f.version = 1; }); }},
        BadFile{"BigEndian", ErrorCode::kNotSupported,
                "gguf version: expected 2 or 3, found 50331648",
                [] { return changed([](GgufBytes& f) { f.version = 0x03000000; }); }},
        BadFile{"TooManyTensors", ErrorCode::kCorruption, "gguf tensors: expected at most 65536",
                [] { return with_u64_at(8, 1ULL << 60); }},
        BadFile{"TooManyPairs", ErrorCode::kCorruption,
                "gguf metadata pairs: expected at most 65536",
                [] { return with_u64_at(16, 1ULL << 60); }},
        BadFile{"MorePairsThanThereAre", ErrorCode::kCorruption, "",
                [] { return with_u64_at(16, 60000); }},
        BadFile{"KeyLongerThanFile", ErrorCode::kCorruption, "gguf header at byte 32",
                [] { return with_u64_at(24, ~0ULL); }},
        BadFile{"UnknownValueType", ErrorCode::kCorruption,
                "gguf key 'x': gguf value type: expected 0 to 12, found 99",
                [] { return changed([](GgufBytes& f) { f.scalar("x", 99, 1); }); }},
        BadFile{"ArrayLongerThanFile", ErrorCode::kCorruption, "gguf key 'x': gguf array elements",
                [] {
                  return changed([](GgufBytes& f) {
                    std::string value;
                    put_bytes<std::uint32_t>(value, 9);
                    put_bytes<std::uint32_t>(value, 8);
                    put_bytes<std::uint64_t>(value, 1ULL << 61);
                    f.raw("x", value);
                  });
                }},
        BadFile{"NestedArray", ErrorCode::kNotSupported,
                "gguf key 'x': gguf array: expected plain elements",
                [] {
                  return changed([](GgufBytes& f) {
                    std::string value;
                    put_bytes<std::uint32_t>(value, 9);
                    put_bytes<std::uint32_t>(value, 9);
                    put_bytes<std::uint64_t>(value, 1);
                    f.raw("x", value);
                  });
                }},
        BadFile{"HugeInteger", ErrorCode::kCorruption, "gguf integer: expected at most 2^63 - 1",
                [] { return changed([](GgufBytes& f) { f.scalar("x", 10, ~std::uint64_t{0}); }); }},
        BadFile{"KeyTwice", ErrorCode::kCorruption, "gguf key 'name': expected once, found twice",
                [] { return changed([](GgufBytes& f) { f.pairs.push_back(f.pairs[0]); }); }},
        BadFile{"TensorTwice", ErrorCode::kCorruption, "tensor 'a': expected once, found twice",
                [] { return changed([](GgufBytes& f) { f.tensors.push_back(f.tensors[0]); }); }},
        BadFile{"RankZero", ErrorCode::kCorruption,
                "tensor 'a': tensor rank: expected 1 to 4, found 0",
                [] { return changed([](GgufBytes& f) { f.tensors[0].dims.clear(); }); }},
        BadFile{"RankFive", ErrorCode::kCorruption, "tensor rank: expected 1 to 4, found 5",
                [] { return changed([](GgufBytes& f) {
                       f.tensors[0].dims = {1, 1, 1, 2, 3};
                     }); }},
        BadFile{"TooManyElements", ErrorCode::kInvalidArgument, "tensor 'a': tensor elements",
                [] {
                  return changed([](GgufBytes& f) {
                    f.tensors[0].dims = {1ULL << 30, 1ULL << 30};
                  });
                }},
        BadFile{"UnknownQuantisation", ErrorCode::kNotSupported,
                "tensor 'a': quantisation: expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1, found ggml "
                "type 12",
                [] { return changed([](GgufBytes& f) { f.tensors[0].type = 12; }); }},
        BadFile{"ColumnsNotWholeBlocks", ErrorCode::kCorruption,
                "columns of Q8_0: expected a multiple of 32, found 3",
                [] { return changed([](GgufBytes& f) { f.tensors[0].type = 8; }); }},
        BadFile{"BadAlignment", ErrorCode::kCorruption,
                "general.alignment: expected a power of two",
                [] { return changed([](GgufBytes& f) { f.u32("general.alignment", 24); }); }},
        BadFile{"ZeroAlignment", ErrorCode::kCorruption,
                "general.alignment: expected a power of two",
                [] { return changed([](GgufBytes& f) { f.u32("general.alignment", 0); }); }},
        BadFile{"OffsetNotAligned", ErrorCode::kCorruption,
                "offset of tensor 'b': expected a multiple of 64",
                [] { return changed([](GgufBytes& f) { f.u32("general.alignment", 64); }); }},
        BadFile{"DataCutOff", ErrorCode::kCorruption, "file bytes for tensor 'b'",
                [] {
                  auto bytes = small_file().build();
                  bytes.resize(bytes.size() - 31);
                  return bytes;
                }},
        BadFile{"Overlap", ErrorCode::kCorruption, "expected no overlap",
                [] { return changed([](GgufBytes& f) {
                       f.tensors[0].dims = {3, 3};
                     }); }}),
    [](const auto& c) { return c.param.name; });

TEST(BadGguf, EveryTruncationIsRefused) {
  const auto bytes = small_file().build();
  for (std::size_t size = 0; size < bytes.size() - 28; ++size) {  // b's last 28 bytes are padding
    EXPECT_FALSE(GgufIndex::parse(view(bytes).first(size))) << size;
  }
}

TEST(GgufFile, NamesFileAndTensorInItsErrors) {
  testing_support::TemporaryFolder folder;
  const auto path = folder.write("a.gguf", small_file().build());
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file);
  EXPECT_EQ(file.value().tensor("b").value().values, std::vector<float>{9});
  EXPECT_EQ(file.value().tensor("c").error().message, path + ": expected tensor 'c', found none");
  const auto bad = GgufFile::open(folder.write("b.gguf", "GGML and some more bytes"));
  EXPECT_THAT(bad.error().message, HasSubstr("b.gguf: gguf magic"));
  EXPECT_EQ(GgufFile::open(folder.path() + "/none.gguf").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(GgufFile::open(folder.write("empty.gguf", "")).error().code, ErrorCode::kCorruption);
  EXPECT_EQ(GgufFile::open(folder.path()).error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace memslot
