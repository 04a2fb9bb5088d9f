// Payload bytes: there and back, and everything that can be wrong with them.
#include "shared/memory/payload.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "tests/support/test_seed.h"

namespace memslot {
namespace {

// Offsets of the header's fields (docs/formats/memory.md).
constexpr std::size_t kFormatAt = 4, kKindAt = 6, kDtypeAt = 7, kLayerAt = 40, kFormAt = 44,
                      kReservedAt = 45, kModelDimAt = 48, kFfDimAt = 52, kScalarCountAt = 88;

SlotSignature signature() {
  SlotSignature s;
  s.model = sha256(bytes_of("model"));
  s.layer = 22;
  s.kind = MemoryKind::kDelta;
  s.d_model = 576;
  s.d_ff = 1536;
  s.outer = sha256(bytes_of("outer"));
  return s;
}

MemoryPayload sample(DType dtype = DType::kBF16) {
  const std::vector<float> a = {1, -2.5F, 3, 0, 0.1F, 65504}, state = {0.1F, 0.2F, 0.3F};
  return MemoryPayloadBuilder(signature(), dtype)
      .scalar("alpha", 16.5)
      .scalar("position", 7)
      .tensor("a", {2, 3}, a)
      .tensor("state:f32", {3}, state)
      .finish()
      .value();
}

std::vector<std::byte> bytes() {
  const auto payload = sample();
  return {payload.bytes().begin(), payload.bytes().end()};
}

template <class T>
std::vector<std::byte> with(std::size_t at, T value) {
  auto out = bytes();
  std::memcpy(out.data() + at, &value, sizeof(value));
  return out;
}

void expect_refused(std::vector<std::byte> raw, ErrorCode code, std::string_view word) {
  const auto parsed = MemoryPayload::parse(std::move(raw));
  ASSERT_FALSE(parsed) << word;
  EXPECT_EQ(error_code_name(parsed.error().code), error_code_name(code)) << parsed.error().message;
  EXPECT_NE(parsed.error().message.find(word), std::string::npos) << parsed.error().message;
}

TEST(MemoryPayload, ComesBackAsItWasBuilt) {
  for (const auto dtype : {DType::kF32, DType::kBF16}) {
    const auto built = sample(dtype);
    const auto parsed = MemoryPayload::parse({built.bytes().begin(), built.bytes().end()});
    ASSERT_TRUE(parsed) << parsed.error().message;
    const auto& payload = parsed.value();
    EXPECT_EQ(payload.signature(), signature());
    EXPECT_EQ(payload.dtype(), dtype);
    EXPECT_EQ(payload.scalar("alpha").value(), 16.5);
    const auto a = payload.tensor_f32("a", {2, 3}).value();
    EXPECT_EQ(a[1], -2.5F);
    EXPECT_EQ(a[4], dtype == DType::kF32 ? 0.1F : bf16_to_f32(f32_to_bf16(0.1F)));
    EXPECT_EQ(payload.tensor("a").value().dtype, dtype);
    EXPECT_EQ(payload.tensor("state:f32").value().dtype, DType::kF32);
    EXPECT_EQ(payload.tensor_f32("state:f32", {3}).value()[2], 0.3F);
    for (const auto& tensor : payload.tensors()) EXPECT_EQ(tensor.offset % 64, 0U);
    EXPECT_TRUE(payload.check_finite());
  }
}

TEST(MemoryPayload, WithoutTensorsOrScalarsIsAHeaderPaddedTo64) {
  const auto payload = MemoryPayloadBuilder(signature(), DType::kF32).finish();
  ASSERT_TRUE(payload);
  EXPECT_EQ(payload.value().bytes().size(), 128U);
  EXPECT_TRUE(payload.value().tensors().empty());
}

TEST(MemoryPayload, AskingForWhatIsNotThereIsAMismatch) {
  const auto payload = sample();
  EXPECT_EQ(payload.tensor("b").error().code, ErrorCode::kMismatch);
  EXPECT_EQ(payload.scalar("b").error().code, ErrorCode::kMismatch);
  const auto wrong = payload.tensor("a", {3, 2});
  EXPECT_EQ(wrong.error().code, ErrorCode::kMismatch);
  EXPECT_EQ(wrong.error().message, "payload tensor a: expected [3, 2], found [2, 3]");
}

TEST(MemoryPayload, EveryTruncationIsRefused) {
  const auto good = bytes();
  for (std::size_t n = 0; n < good.size(); ++n) {
    const auto parsed =
        MemoryPayload::parse({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)});
    ASSERT_FALSE(parsed) << n;
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorruption) << n;
  }
}

TEST(MemoryPayload, TrailingBytesAndDirtyPaddingAreRefused) {
  auto longer = bytes();
  longer.push_back(std::byte{0});
  expect_refused(longer, ErrorCode::kCorruption, "payload bytes");
  const auto first = sample().tensors().front().offset;
  expect_refused(with(first - 1, std::uint8_t{1}), ErrorCode::kCorruption, "padding");
}

TEST(MemoryPayload, EveryBadHeaderFieldIsNamed) {
  const auto bad = ErrorCode::kCorruption;
  expect_refused(with(0, std::uint32_t{0}), bad, "magic");
  expect_refused({}, bad, "magic");
  expect_refused(with(kFormatAt, std::uint16_t{0}), bad, "format");
  expect_refused(with(kFormatAt, std::uint16_t{2}), ErrorCode::kNotSupported, "format");
  expect_refused(with(kKindAt, std::uint8_t{0}), bad, "kind");
  expect_refused(with(kKindAt, std::uint8_t{11}), bad, "kind");
  expect_refused(with(kDtypeAt, std::uint8_t{3}), bad, "dtype");
  expect_refused(with(kLayerAt, std::int32_t{-1}), bad, "layer");
  expect_refused(with(kLayerAt, std::int32_t{4096}), bad, "layer");
  expect_refused(with(kFormAt, std::uint8_t{3}), bad, "mlp form");
  expect_refused(with(kReservedAt, std::uint8_t{1}), bad, "reserved");
  expect_refused(with(kModelDimAt, std::int32_t{0}), bad, "d_model");
  expect_refused(with(kModelDimAt, std::int32_t{1 << 30}), bad, "d_model");
  expect_refused(with(kFfDimAt, std::int32_t{-5}), bad, "d_ff");
  expect_refused(with(kScalarCountAt, std::uint32_t{0xffffffff}), bad, "scalar count");
  // Scalars end at 92 + 2 * (2 + 8) + 5 + 8 = 125; then the tensor count, and the first tensor.
  expect_refused(with(125, std::uint32_t{0xffffffff}), bad, "tensor count");
  expect_refused(with(129, std::uint16_t{0}), bad, "tensor name");
  expect_refused(with(129, std::uint16_t{0xffff}), bad, "tensor name");
  expect_refused(with(131, std::uint8_t{' '}), bad, "tensor name");
  expect_refused(with(132, std::uint8_t{5}), bad, "rank");
  expect_refused(with(133, std::int64_t{-2}), bad, "dimension");
  expect_refused(with(133, std::numeric_limits<std::int64_t>::max()), bad, "elements");
  expect_refused(with(133, std::int64_t{1} << 38), bad, "payload bytes of a");
  expect_refused(with(149, std::uint64_t{0}), bad, "offset");
  expect_refused(with(149, std::uint64_t{0xffffffffffffffc0}), bad, "offset");
}

TEST(MemoryPayload, TwoTensorsOfOneNameAreRefused) {
  const std::vector<float> v(3);
  const auto twice = MemoryPayloadBuilder(signature(), DType::kF32)
                         .tensor("a", {3}, v)
                         .tensor("a", {3}, v)
                         .finish();
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code, ErrorCode::kInvalidArgument);
}

TEST(MemoryPayload, RandomDamageNeverBreaksTheParser) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  std::mt19937 rng(seed);
  const auto good = bytes();
  for (int i = 0; i < 20'000; ++i) {
    auto raw = good;
    for (auto n = 1 + rng() % 4; n > 0; --n)
      raw[rng() % raw.size()] = static_cast<std::byte>(rng());
    const auto parsed = MemoryPayload::parse(std::move(raw));
    if (!parsed) continue;
    for (const auto& tensor : parsed.value().tensors()) {
      const auto view = parsed.value().tensor(tensor.name).value();
      ASSERT_LE(tensor.offset + view.bytes(), parsed.value().bytes().size());
    }
    const auto finite = parsed.value().check_finite();
    ASSERT_TRUE(finite || finite.error().code == ErrorCode::kCorruption);
  }
}

TEST(MemoryPayload, NonFiniteNumbersAreFoundWhereverTheyAre) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const auto dtype : {DType::kF32, DType::kBF16}) {
      for (const std::string name : {"w", "w:f32"}) {
        std::vector<float> values(33, 1.0F);
        values[32] = bad;
        const auto payload =
            MemoryPayloadBuilder(signature(), dtype).tensor(name, {33}, values).finish();
        ASSERT_TRUE(payload);
        const auto checked = payload.value().check_finite();
        ASSERT_FALSE(checked);
        EXPECT_EQ(checked.error().code, ErrorCode::kCorruption);
        EXPECT_NE(checked.error().message.find(name), std::string::npos);
      }
    }
  }
  const auto scalar =
      MemoryPayloadBuilder(signature(), DType::kF32).scalar("x", std::nan("")).finish();
  EXPECT_FALSE(scalar.value().check_finite());
}

TEST(MemoryPayload, TheBuilderRefusesWhatParseWouldRefuse) {
  const std::vector<float> huge((kMaxPayloadBytes / 4) + 1);
  const auto over = MemoryPayloadBuilder(signature(), DType::kF32)
                        .tensor("w", {static_cast<std::int64_t>(huge.size())}, huge)
                        .finish();
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code, ErrorCode::kInvalidArgument);
  auto bad = signature();
  bad.d_model = 0;
  EXPECT_EQ(MemoryPayloadBuilder(bad, DType::kF32).finish().error().code,
            ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace memslot
