#include "shared/base/base64.h"

#include <gtest/gtest.h>

#include <cmath>

namespace memslot {
namespace {

std::string encoded(std::string_view text) { return to_base64(std::as_bytes(std::span(text))); }

TEST(Base64, IsThatOfTheRfc) {
  const std::pair<const char*, const char*> cases[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : cases) {
    EXPECT_EQ(encoded(plain), coded);
    const auto back = from_base64(coded);
    ASSERT_TRUE(back.has_value()) << coded;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(back.value().data()), back.value().size()),
              plain);
  }
}

TEST(Base64, NumbersComeBackBitByBit) {
  const std::vector<float> values = {0.0f, -0.0f, 1.0f / 3, -3e38f, 1e-45f};
  const auto back = floats_from_base64(floats_to_base64(values), values.size());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back.value(), values);
  EXPECT_TRUE(std::signbit(back.value()[1]));
}

TEST(Base64, WhatNoEncoderWritesIsCorrupt) {
  for (const char* bad :
       {"Z", "Zg=", "Zg==Zg==", "Zm9-", "Z===", "====", "Zh==", "Zm9v\n", "Zg=a"}) {
    const auto result = from_base64(bad);
    ASSERT_FALSE(result.has_value()) << bad;
    EXPECT_EQ(result.error().code, ErrorCode::kCorruption) << bad;
  }
  const auto short_one = floats_from_base64("AAAA", 1);
  ASSERT_FALSE(short_one.has_value());
  EXPECT_NE(short_one.error().message.find("4 bytes"), std::string::npos);
}

}  // namespace
}  // namespace memslot
