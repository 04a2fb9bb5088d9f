#include "shared/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/gguf_bytes.h"
#include "tests/support/safetensors_bytes.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using testing::HasSubstr;
using testing_support::f32_bytes;
using testing_support::safetensors_bytes;
using testing_support::SafetensorsBytes;
using testing_support::TemporaryFolder;

std::span<const std::byte> view(const std::string& bytes) {
  return std::as_bytes(std::span(bytes));
}

TEST(Safetensors, ReadsFloatsOfAllWidthsAndIntegers) {
  TemporaryFolder folder;
  SafetensorsBytes file;
  file.add("f32", "F32", "[2,2]", f32_bytes({1, -2, 3, 4}));
  file.add("odd", "U8", "[1]", "x");  // what follows is not aligned
  file.add("bf16", "BF16", "[2]", std::string("\x80\x3F\x00\xC0", 4));
  file.add("f16", "F16", "[1]", std::string("\x00\x3C", 2));
  file.add("i64", "I64", "[1]", std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8));
  file.add("i32", "I32", "[]", std::string("\x05\x00\x00\x00", 4));
  file.add("none", "F32", "[0,7]", "");
  const auto open = SafetensorsFile::open(folder.write("a.safetensors", file.build()));
  ASSERT_TRUE(open) << open.error().message;
  const auto& f = open.value();
  EXPECT_EQ(f.tensor("f32").value().shape, (Shape{2, 2}));
  EXPECT_EQ(f.tensor("f32").value().values, (std::vector<float>{1, -2, 3, 4}));
  EXPECT_EQ(f.tensor("bf16").value().values, (std::vector<float>{1, -2}));
  EXPECT_EQ(f.tensor("f16").value().values, std::vector<float>{1});
  EXPECT_EQ(f.ids("i64").value(), std::vector<std::int64_t>{-1});
  EXPECT_EQ(f.ids("i32").value(), std::vector<std::int64_t>{5});
  EXPECT_TRUE(f.tensor("none").value().values.empty());
  EXPECT_EQ(f.tensor("odd").error().code, ErrorCode::kNotSupported);
  EXPECT_EQ(f.ids("f32").error().code, ErrorCode::kNotSupported);
  EXPECT_EQ(f.tensor("absent").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(f.ids("absent").error().code, ErrorCode::kNotFound);
}

TEST(Safetensors, ReadsMetadata) {
  const auto bytes = safetensors_bytes(R"({"__metadata__":{"tol":"1e-5"}})", "");
  EXPECT_EQ(SafetensorsIndex::parse(view(bytes)).value().metadata.at("tol"), "1e-5");
}

struct BadFile {
  const char* name;
  ErrorCode code;
  const char* message;
  std::string bytes;
};
class BadSafetensors : public testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, IsRefusedWithItsReason) {
  const auto index = SafetensorsIndex::parse(view(GetParam().bytes));
  ASSERT_FALSE(index);
  EXPECT_EQ(index.error().code, GetParam().code);
  EXPECT_THAT(index.error().message, HasSubstr(GetParam().message));
}

std::string one(const std::string& entry, std::size_t data_bytes) {
  return safetensors_bytes(R"({"t":)" + entry + "}", std::string(data_bytes, 'd'));
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadSafetensors,
    testing::Values(
        BadFile{"TooShort", ErrorCode::kCorruption,
                "safetensors bytes: expected at least 8, found 3", "abc"},
        BadFile{"HeaderHuge", ErrorCode::kCorruption,
                "safetensors header bytes: expected at most 100000000", std::string(16, '\xFF')},
        BadFile{"HeaderPastEnd", ErrorCode::kCorruption,
                "safetensors header bytes: expected at most 2, found 9",
                std::string("\x09\0\0\0\0\0\0\0{}", 10)},
        BadFile{"NotJson", ErrorCode::kCorruption,
                "safetensors header: expected a JSON object, found no JSON",
                safetensors_bytes("{\"a", "")},
        BadFile{"NotAnObject", ErrorCode::kCorruption, "expected a JSON object, found array",
                safetensors_bytes("[1]", "")},
        BadFile{"NestedDeeperThanTheStack", ErrorCode::kCorruption,
                "safetensors header nesting: expected at most 64, found deeper",
                safetensors_bytes(
                    "{\"a\":" + std::string(1000000, '[') + std::string(1000000, ']') + "}", "")},
        BadFile{"EntryNotAnObject", ErrorCode::kCorruption, "tensor 't': header entry",
                one("3", 0)},
        BadFile{"NoShape", ErrorCode::kCorruption, "tensor 't': header entry",
                one(R"({"dtype":"F32","data_offsets":[0,4]})", 4)},
        BadFile{"NegativeDimension", ErrorCode::kCorruption, "tensor 't': header entry",
                one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4)},
        BadFile{"FractionalDimension", ErrorCode::kCorruption, "tensor 't': header entry",
                one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4)},
        BadFile{"OneOffset", ErrorCode::kCorruption, "tensor 't': header entry",
                one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", 4)},
        BadFile{"UnknownDtype", ErrorCode::kNotSupported,
                "tensor 't': dtype: expected a safetensors dtype, found 'Q4'",
                one(R"({"dtype":"Q4","shape":[1],"data_offsets":[0,4]})", 4)},
        BadFile{"OffsetsReversed", ErrorCode::kCorruption,
                "data_offsets: expected begin <= end <= 4, found [4, 0]",
                one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4)},
        BadFile{"OffsetPastEnd", ErrorCode::kCorruption,
                "data_offsets: expected begin <= end <= 4, found [0, 8]",
                one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 4)},
        BadFile{"ShapeDoesNotFit", ErrorCode::kCorruption, "tensor bytes: expected 12, found 8",
                one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8)},
        BadFile{"RankFive", ErrorCode::kInvalidArgument, "tensor rank",
                one(R"({"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4]})", 4)},
        BadFile{"TooManyElements", ErrorCode::kInvalidArgument, "tensor elements",
                one(R"({"dtype":"U8","shape":[1073741824,1073741824],"data_offsets":[0,4]})", 4)},
        BadFile{"Hole", ErrorCode::kCorruption, "next tensor's offset: expected 0, found 4",
                one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8)},
        BadFile{"TrailingBytes", ErrorCode::kCorruption, "file bytes",
                one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 5)},
        BadFile{"Overlap", ErrorCode::kCorruption, "next tensor's offset: expected 4, found 0",
                safetensors_bytes(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                  R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                  "1234")},
        BadFile{"MetadataNotText", ErrorCode::kCorruption, "__metadata__ value of 'a'",
                safetensors_bytes(R"({"__metadata__":{"a":1}})", "")},
        BadFile{"MetadataNotAnObject", ErrorCode::kCorruption, "__metadata__: expected an object",
                safetensors_bytes(R"({"__metadata__":[]})", "")}),
    [](const auto& c) { return c.param.name; });

TEST(BadSafetensors, EveryTruncationIsRefused) {
  const auto bytes = SafetensorsBytes().add("a", "F32", "[2]", f32_bytes({1, 2})).build();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(SafetensorsIndex::parse(view(bytes).first(size))) << size;
  }
}

}  // namespace
}  // namespace memslot
