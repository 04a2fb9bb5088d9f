#include "shared/files/write_safetensors.h"

#include <gtest/gtest.h>

#include <bit>  // bit_cast

#include "shared/files/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

TEST(WriteSafetensors, WhatIsWrittenIsReadBackBitForBit) {
  testing_support::TemporaryFolder folder;
  const std::map<std::string, HostTensor> tensors = {
      {"b", {Shape{2, 3}, {1, -2, 3.5f, 0, -0.0f, 1e-30f}}},
      {"a", {Shape{1}, {7}}},
      {"none", {Shape{0, 4}, {}}},
  };
  const std::string bytes = safetensors_bytes(tensors, {{"format", "1"}, {"quote", "\"ä\n"}});
  const auto file = SafetensorsFile::open(folder.write("x.safetensors", bytes));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file.value().index().metadata.at("quote"), "\"ä\n");
  for (const auto& [name, tensor] : tensors) {
    const auto read = file.value().tensor(name);
    ASSERT_TRUE(read) << name;
    EXPECT_EQ(read.value().shape, tensor.shape);
    ASSERT_EQ(read.value().values.size(), tensor.values.size());
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {  // bits: -0 and 0 are two values
      EXPECT_EQ(std::bit_cast<std::uint32_t>(read.value().values[i]),
                std::bit_cast<std::uint32_t>(tensor.values[i]));
    }
  }
}

TEST(WriteSafetensors, TheSameContentGivesTheSameBytes) {
  const std::map<std::string, HostTensor> tensors = {{"w", {Shape{2}, {1, 2}}}};
  EXPECT_EQ(safetensors_bytes(tensors, {{"a", "1"}, {"b", "2"}}),
            safetensors_bytes(tensors, {{"b", "2"}, {"a", "1"}}));
}

TEST(WriteSafetensors, DataBeginsOnAMultipleOfEightBytes) {
  for (const char* text : {"", "1", "12", "123", "1234567"}) {
    const std::string bytes = safetensors_bytes({{"w", {Shape{1}, {1}}}}, {{"pad", text}});
    EXPECT_EQ((bytes.size() - sizeof(float)) % 8, 0u);
  }
}

}  // namespace
}  // namespace memslot
