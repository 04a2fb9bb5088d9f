#include "generator/model/gguf_dequant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace memslot {
namespace {

// f16 of small powers of two and their sums, by hand: 1 = 0x3C00, 0.5 = 0x3800, -2 = 0xC000.
std::vector<std::byte> bytes(std::initializer_list<int> head, int quants, int value) {
  std::vector<std::byte> out;
  for (const int b : head) out.push_back(static_cast<std::byte>(b));
  for (int i = 0; i < quants; ++i) out.push_back(static_cast<std::byte>(value + i));
  return out;
}

std::vector<float> values(GgmlType type, std::span<const std::byte> blocks, std::size_t n = 32) {
  std::vector<float> out(n);
  dequantise(type, blocks, out);
  return out;
}

TEST(Dequantise, Q8_0IsScaleTimesSignedByte) {
  const auto got =
      values(GgmlType::kQ8_0, bytes({0x00, 0x38}, 32, 0xF0));  // d = 0.5; -16, -15, ...
  for (int j = 0; j < 32; ++j)
    EXPECT_EQ(got[static_cast<std::size_t>(j)], 0.5f * static_cast<float>(j - 16));
}

TEST(Dequantise, Q4_0PutsLowNibblesFirstAndSubtractsEight) {
  const auto got =
      values(GgmlType::kQ4_0, bytes({0x00, 0xC0}, 16, 0x30));  // d = -2; 0x30, 0x31, ...
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(got[static_cast<std::size_t>(j)], -2.0f * static_cast<float>(j - 8));
    EXPECT_EQ(got[static_cast<std::size_t>(j + 16)], -2.0f * static_cast<float>(3 - 8));
  }
}

TEST(Dequantise, Q4_1AddsTheMinimum) {
  const auto got =
      values(GgmlType::kQ4_1, bytes({0x00, 0x38, 0x00, 0xC0}, 16, 0xA0));  // d = 0.5, m = -2
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(got[static_cast<std::size_t>(j)], 0.5f * static_cast<float>(j) - 2.0f);
    EXPECT_EQ(got[static_cast<std::size_t>(j + 16)], 0.5f * 10.0f - 2.0f);
  }
}

TEST(Dequantise, PlainTypesKeepTheirValues) {
  EXPECT_EQ(values(GgmlType::kF16, bytes({0x00, 0x3C, 0x00, 0xC0, 0x01, 0x00}, 0, 0), 3),
            (std::vector<float>{1.0f, -2.0f, std::ldexp(1.0f, -24)}));
  EXPECT_EQ(values(GgmlType::kBF16, bytes({0x80, 0x3F, 0x00, 0xC0}, 0, 0), 2),
            (std::vector<float>{1.0f, -2.0f}));
  EXPECT_EQ(values(GgmlType::kF32, bytes({0, 0, 0x80, 0x3F}, 0, 0), 1), std::vector<float>{1.0f});
}

TEST(Dequantise, BlocksFollowOneAnother) {
  auto two = bytes({0x00, 0x3C}, 32, 0);
  const auto second = bytes({0x00, 0x38}, 32, 0);
  two.insert(two.end(), second.begin(), second.end());
  const auto got = values(GgmlType::kQ8_0, two, 64);
  EXPECT_EQ(got[31], 31.0f);
  EXPECT_EQ(got[63], 15.5f);
}

TEST(GgmlTypes, UnknownOnesAreRefusedByNumber) {
  for (const std::uint32_t type : {4U, 6U, 12U, 14U, 39U, 0xFFFFFFFFU}) {
    const auto parsed = parse_ggml_type(type);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code, ErrorCode::kNotSupported);
    EXPECT_NE(parsed.error().message.find("found ggml type " + std::to_string(type)),
              std::string::npos);
  }
}

}  // namespace
}  // namespace memslot
