#include "shared/wire/codec.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/support/test_seed.h"
#include "tests/wire/frames_file.h"
#include "tests/wire/random_message.h"

namespace memslot::wire {
namespace {

constexpr std::size_t kBodies = std::variant_size_v<Body>;

void expect_equal(const Message& want, const Message& got) {
  EXPECT_EQ(got.request, want.request);
  EXPECT_TRUE(got.body == want.body) << body_name(want.body) << " became " << body_name(got.body);
  ASSERT_EQ(got.parts.size(), want.parts.size());
  for (std::size_t i = 0; i < want.parts.size(); ++i) EXPECT_EQ(*got.parts[i], *want.parts[i]);
}

class EveryBody : public testing::TestWithParam<std::size_t> {};

TEST_P(EveryBody, ComesBackEqualWhateverItsFieldsHold) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  Random random(seed * 1000 + GetParam());
  for (int i = 0; i < 60; ++i) {
    const Message want = random_message(GetParam(), random);
    const auto frames = encode(want);
    ASSERT_TRUE(frames) << frames.error().message;
    ASSERT_EQ(frames.value().size(), want.parts.size() + 1);
    const auto got = decode(frames.value());
    ASSERT_TRUE(got) << got.error().message;
    expect_equal(want, got.value());
  }
}

TEST_P(EveryBody, EncodesToTheSameBytesEveryTime) {
  Random one(7), two(7);
  const auto a = encode(random_message(GetParam(), one));
  const auto b = encode(random_message(GetParam(), two));
  ASSERT_TRUE(a && b);
  EXPECT_EQ(*a.value()[0], *b.value()[0]);
}

INSTANTIATE_TEST_SUITE_P(Bodies, EveryBody, testing::Range(std::size_t{0}, kBodies),
                         [](const auto& param_info) {
                           Random random(1);
                           return std::string(
                               body_name(random_message(param_info.param, random).body));
                         });

TEST(Codec, DefaultBodiesThatMayBeSentKeepTheirDefaults) {
  const Message want{5, Observation{}, {}};
  const auto frames = encode(want);
  ASSERT_TRUE(frames) << frames.error().message;
  const auto got = decode(frames.value());
  ASSERT_TRUE(got) << got.error().message;
  expect_equal(want, got.value());
}

TEST(Codec, AnObservationOfTheDefaultModelFitsThreeKilobytes) {
  Observation observation;
  observation.chunks = {{std::vector<float>(576, 0.25f), 16}};
  observation.active.resize(1);
  const auto frames = encode({1, observation, {}});
  ASSERT_TRUE(frames);
  EXPECT_LT(frames.value()[0]->size(), 576 * sizeof(float) + 512);
}

TEST(Codec, PartsTravelWithoutACopy) {
  const auto payload = share_bytes(std::vector<std::byte>(100000));
  Random random(3);
  Message message = random_message(Body(MemoryReply{}).index(), random);
  message.parts = {payload};
  const auto frames = encode(message);
  ASSERT_TRUE(frames);
  EXPECT_EQ(frames.value()[1].get(), payload.get());
  const auto got = decode(frames.value());
  ASSERT_TRUE(got);
  EXPECT_EQ(got.value().parts[0].get(), payload.get());
}

TEST(Codec, InPlaceOfWhatDoesNotFitItsPeerGetsTheError) {
  const Error refusal{ErrorCode::kInvalidArgument, "envelope bytes: expected 1, found 2"};
  const auto reply = in_place_of({7, AdminReply{"long"}, {}}, refusal);
  EXPECT_EQ(reply.request, 7u);
  EXPECT_EQ(std::get<ErrorReply>(reply.body),
            (ErrorReply{refusal.code, "result: envelope bytes: expected 1, found 2"}));
  const auto event = in_place_of({8, TaskEvent{9, "long", true, {}}, {}}, refusal);
  EXPECT_EQ(event.request, 8u);
  EXPECT_EQ(std::get<TaskEvent>(event.body).task, 9u);
  EXPECT_TRUE(std::get<TaskEvent>(event.body).final);
  EXPECT_EQ(std::get<TaskEvent>(event.body).error->code, refusal.code);
  EXPECT_TRUE(encode(reply));
  EXPECT_TRUE(encode(event));
}

TEST(Codec, RepliesAreToldFromRequests) {
  EXPECT_TRUE(is_reply(Directive{}));
  EXPECT_TRUE(is_reply(ErrorReply{}));
  EXPECT_TRUE(is_reply(TaskEvent{}));
  EXPECT_FALSE(is_reply(Observation{}));
  EXPECT_FALSE(is_reply(AssignTask{}));  // the controller's own request, with its own ids
  EXPECT_FALSE(is_reply(Heartbeat{}));
}

std::vector<SharedBytes> frames_of_seed(const std::string& name) {
  std::ifstream in(std::string(MEMSLOT_SOURCE_DIR "/tests/fuzz/corpus/codec/") + name,
                   std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return frames_of_file(std::as_bytes(std::span(bytes)));
}

// Found by the fuzzer: undefined behaviour, which the sanitizer build reports here.
TEST(Codec, PartsThatLieMisalignedInTheEnvelopeAreReadWithoutHarm) {
  const auto frames = frames_of_seed("misaligned_parts");
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(decode(frames).error().code, ErrorCode::kCorruption);
}

// The seeds are messages as version 2 of the protocol wrote them: they must stay readable.
TEST(Codec, EveryCommittedMessageIsStillUnderstood) {
  std::set<std::string_view> seen;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(MEMSLOT_SOURCE_DIR) / "tests/fuzz/corpus/codec")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("v2_")) continue;
    const auto message = decode(frames_of_seed(name));
    ASSERT_TRUE(message) << name << ": " << message.error().message;
    seen.insert(body_name(message.value().body));
  }
  EXPECT_EQ(seen.size(), kBodies) << "one committed message for every body";
}

}  // namespace
}  // namespace memslot::wire
