#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "shared/wire/codec.h"
#include "shared/wire/limits.h"
#include "tests/support/test_seed.h"
#include "tests/wire/random_message.h"

namespace memslot::wire {
namespace {

constexpr std::size_t kBodies = std::variant_size_v<Body>;
using Frames = std::vector<SharedBytes>;

Frames encoded(const Message& message) {
  auto frames = encode(message);
  EXPECT_TRUE(frames) << frames.error().message;
  return frames.value();
}

Frames encoded_write_back() {
  Random random(11);
  return encoded(random_message(Body(WriteBack{}).index(), random));
}

SharedBytes with_byte(const SharedBytes& frame, std::size_t at, std::byte value) {
  auto bytes = *frame;
  bytes[at] = value;
  return share_bytes(std::move(bytes));
}

ErrorCode code_of(const Frames& frames) {
  const auto got = decode(frames);
  EXPECT_FALSE(got) << "expected a refusal";
  return got ? ErrorCode::kInternal : got.error().code;
}

TEST(MalformedMessage, NoFramesAreRefused) { EXPECT_EQ(code_of({}), ErrorCode::kCorruption); }

TEST(MalformedMessage, AnEmptyEnvelopeIsRefused) {
  EXPECT_EQ(code_of({share_bytes({})}), ErrorCode::kCorruption);
}

TEST(MalformedMessage, AnEnvelopeCutAtAnyLengthIsRefusedOrWhole) {
  Random random(5);
  for (std::size_t type = 0; type < kBodies; ++type) {
    const Message message = random_message(type, random);
    Frames frames = encoded(message);
    const auto whole = *frames[0];
    for (std::size_t length = 0; length < whole.size(); ++length) {
      frames[0] = std::make_shared<const std::vector<std::byte>>(
          whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      const auto got = decode(frames);
      // Only padding at the very end may be missed without harm.
      ASSERT_TRUE(!got || got.value().body == message.body) << "cut at " << length;
    }
  }
}

TEST(MalformedMessage, FlippedBytesNeverBreakTheRules) {
  const unsigned seed = test_seed();
  SCOPED_TRACE(seed_hint(seed));
  Random random(seed);
  int refused = 0;
  constexpr int kRounds = 20000;
  Frames original;
  for (int i = 0; i < kRounds; ++i) {
    if (i % 100 == 0) original = encoded(random_message(random() % kBodies, random));
    auto bytes = *original[0];
    for (auto flips = 1 + random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] ^= static_cast<std::byte>(1 + random() % 255);
    }
    Frames frames = original;
    frames[0] = share_bytes(std::move(bytes));
    const auto got = decode(frames);
    if (!got) {
      ++refused;
      continue;
    }
    ASSERT_TRUE(encode(got.value())) << "decode let through what encode refuses";
  }
  EXPECT_GT(refused, kRounds / 10);
}

TEST(MalformedMessage, RandomBytesAreRefused) {
  Random random(test_seed());
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> bytes(random() % 300);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    EXPECT_FALSE(decode({share_bytes(std::move(bytes))}));
  }
}

TEST(MalformedMessage, AnotherProtocolVersionIsNamed) {
  const Frames frames = encoded({0, Heartbeat{77}, {}});
  int found = 0;
  for (std::size_t at = 0; at < frames[0]->size(); ++at) {
    if ((*frames[0])[at] != std::byte{kProtocolVersion}) continue;
    const auto got = decode({with_byte(frames[0], at, std::byte{kProtocolVersion + 1})});
    if (got || got.error().code != ErrorCode::kMismatch) continue;
    ++found;
    EXPECT_EQ(got.error().message, "protocol version: expected 2, found 3");
  }
  EXPECT_EQ(found, 1) << "one byte of the envelope is its version";
}

TEST(MalformedMessage, AnUnknownBodyIsRefused) {
  const Frames frames = encoded({0, Heartbeat{0x5555555555555555}, {}});
  bool named = false;
  for (std::size_t at = 0; at < frames[0]->size(); ++at) {
    const auto got = decode({with_byte(frames[0], at, std::byte{200})});
    named = named || (!got && got.error().message == "message body: expected one of 28, found 200");
  }
  EXPECT_TRUE(named);
}

TEST(MalformedMessage, AMissingPartIsRefused) {
  Frames frames = encoded_write_back();
  frames.pop_back();
  EXPECT_EQ(code_of(frames), ErrorCode::kCorruption);
}

TEST(MalformedMessage, AnExtraPartIsRefused) {
  Frames frames = encoded_write_back();
  frames.push_back(frames.back());
  EXPECT_EQ(code_of(frames), ErrorCode::kCorruption);
}

TEST(MalformedMessage, MorePartsThanTheLimitAreRefused) {
  Frames frames = encoded_write_back();
  while (frames.size() < kMaxParts + 2) frames.push_back(frames.back());
  EXPECT_EQ(code_of(frames), ErrorCode::kInvalidArgument);
}

TEST(MalformedMessage, APartThatDoesNotMatchItsDigestIsRefused) {
  Frames frames = encoded_write_back();
  ASSERT_FALSE(frames[1]->empty());
  frames[1] = with_byte(frames[1], 0, (*frames[1])[0] ^ std::byte{1});
  const auto got = decode(frames);
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, ErrorCode::kCorruption);
  EXPECT_NE(got.error().message.find("part 0 XXH3-128: expected"), std::string::npos);
}

TEST(MalformedMessage, AShorterPartIsRefused) {
  Frames frames = encoded_write_back();
  auto bytes = *frames[1];
  bytes.pop_back();
  frames[1] = share_bytes(std::move(bytes));
  EXPECT_EQ(code_of(frames), ErrorCode::kCorruption);
}

TEST(MalformedMessage, AnOversizeEnvelopeIsRefusedBeforeItIsRead) {
  EXPECT_EQ(code_of({share_bytes(std::vector<std::byte>(kMaxEnvelopeBytes + 1))}),
            ErrorCode::kInvalidArgument);
}

TEST(MalformedMessage, AnOversizePartIsRefused) {
  Frames frames = encoded_write_back();
  frames[1] = share_bytes(std::vector<std::byte>(kMaxPartBytes + 1));
  EXPECT_EQ(code_of(frames), ErrorCode::kInvalidArgument);
}

// --- what encode() refuses -----------------------------------------------------------------------

struct Bad {
  const char* what;
  Body body;
};

Body observation(void (*spoil)(Observation&)) {
  Observation m;
  m.active.resize(1);
  spoil(m);
  return m;
}

Body directive(void (*spoil)(SlotAction&)) {
  Directive m;
  m.actions.push_back({0, ActionKind::kUse, {"default", "notes", 3}, {}, -1});
  spoil(m.actions[0]);
  return m;
}

Body open_session(void (*spoil)(OpenSession&)) {
  OpenSession m;
  spoil(m);
  return m;
}

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Bad> bad_bodies() {
  return {
      {"NanEntropy", observation([](Observation& m) { m.entropy = kNan; })},
      {"InfiniteSurprise", observation([](Observation& m) { m.surprise = kInfinity; })},
      {"NanGain", observation([](Observation& m) { m.gain = kNan; })},
      {"NanInAChunk", observation([](Observation& m) {
         m.chunks = {{{1, 2, 3, 4}, 16}, {{1, 2, kNan, 4}, 16}};
       })},
      {"InfinityInAChunk", observation([](Observation& m) {
         m.chunks = {{{-kInfinity}, 1}};
       })},
      {"ChunkOfNoTokens", observation([](Observation& m) {
         m.chunks = {{{1, 2}, 0}};
       })},
      {"ChunkOfNoValues", observation([](Observation& m) {
         m.chunks = {{{}, 16}};
       })},
      {"ChunksOfTwoSizes", observation([](Observation& m) {
         m.chunks = {{{1, 2}, 16}, {{1, 2, 3}, 16}};
       })},
      {"TooWideChunk", observation([](Observation& m) {
         m.chunks = {{std::vector<float>(kMaxHidden + 1), 16}};
       })},
      {"TooManyChunks", observation([](Observation& m) {
         m.chunks.assign(kMaxChunks + 1, ChunkSummary{{1}, 16});
       })},
      {"TooManyChunkValues", observation([](Observation& m) {
         m.chunks.assign(9, ChunkSummary{std::vector<float>(kMaxHidden), 16});
       })},
      {"TooManyActive", observation([](Observation& m) { m.active.resize(kMaxSlots + 1); })},
      {"UnknownReason",
       observation([](Observation& m) { m.active[0].reason = static_cast<ActiveReason>(7); })},
      {"ResidentWithoutVersion", observation([](Observation& m) {
         m.residents.added = {{0, {"default", "a", 0}}};
       })},
      {"TooManyResidents", observation([](Observation& m) {
         m.residents.added.assign(kMaxResidents + 1, {0, {"default", "a", 1}});
       })},
      {"BadMemoryName", observation([](Observation& m) { m.active[0].ref.id = "../etc"; })},
      {"BadNamespace", observation([](Observation& m) { m.active[0].ref.ns = "A B"; })},
      {"UnknownAction", directive([](SlotAction& a) { a.action = static_cast<ActionKind>(0); })},
      {"UseOfNoMemory", directive([](SlotAction& a) { a.ref.id = ""; })},
      {"UseOfTheHead", directive([](SlotAction& a) { a.ref.version = 0; })},
      {"PartThatIsNotThere", directive([](SlotAction& a) { a.part = 0; })},
      {"PartBelowMinusOne", directive([](SlotAction& a) { a.part = -2; })},
      {"PartOverTheLimit", directive([](SlotAction& a) { a.part = 1 << 30; })},
      {"PartOfBase", directive([](SlotAction& a) {
         a.action = ActionKind::kBase;
         a.part = 0;
       })},
      {"UnknownSelectMode",
       open_session([](OpenSession& m) { m.select = static_cast<SelectMode>(9); })},
      {"UnknownKvMode", open_session([](OpenSession& m) { m.kv = static_cast<KvMode>(0); })},
      {"EmptyNamespace", open_session([](OpenSession& m) { m.namespaces = {""}; })},
      {"NamespaceOfAnotherShape", open_session([](OpenSession& m) { m.namespaces = {"-x"}; })},
      {"TooManyNamespaces",
       open_session([](OpenSession& m) { m.namespaces.assign(kMaxNamespaces + 1, "a"); })},
      {"TooManySlots", open_session([](OpenSession& m) { m.slots.resize(kMaxSlots + 1); })},
      {"SlotWithoutSize", open_session([](OpenSession& m) {
         m.slots = {{3, MlpForm::kSwiGlu, 0, 5}};
       })},
      {"UnknownErrorCode", ErrorReply{static_cast<ErrorCode>(99), ""}},
      {"UnknownRole", Hello{static_cast<PeerRole>(3), 1, "", {}, "", {}, 0}},
      {"NoHeartbeat", HelloReply{1, "", 0}},
      {"FetchOfNothing", FetchMemory{}},
      {"NanLoss", LearnProgress{"j", 1, 2, 3, kNan, 0, "training"}},
      {"ErrorBeforeTheEnd", TaskEvent{1, "{}", false, ErrorReply{}}},
      {"LongVerb", AdminRequest{std::string(kMaxWordBytes + 1, 'v'), "{}"}},
      {"MissingPayload", MemoryReply{}},
      {"EnvelopeOverTheLimit", SubmitTask{"score", std::string(kMaxEnvelopeBytes, 'x')}},
  };
}

class BadBody : public testing::TestWithParam<Bad> {};

TEST_P(BadBody, IsRefusedBeforeItLeaves) {
  const auto frames = encode({1, GetParam().body, {}});
  ASSERT_FALSE(frames);
  EXPECT_EQ(frames.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(frames.error().message.find("expected"), std::string::npos) << frames.error().message;
}

INSTANTIATE_TEST_SUITE_P(Codec, BadBody, testing::ValuesIn(bad_bodies()),
                         [](const auto& param_info) { return std::string(param_info.param.what); });

// Thirteen values: the number of chunks, found in the bytes and replaced there, must divide them.
TEST(MalformedMessage, MeansThatDoNotDivideAmongTheirChunksAreRefused) {
  Observation observation;
  observation.chunks.assign(13, ChunkSummary{{1}, 0x11223344});
  auto bytes = *encoded({1, observation, {}})[0];
  const std::uint32_t counted[] = {13, 0x11223344, 0x11223344};
  int found = 0;
  for (std::size_t at = 0; at + sizeof counted <= bytes.size(); at += 4) {
    if (std::memcmp(bytes.data() + at, counted, sizeof counted) != 0) continue;
    ++found;
    for (const int chunks : {0, 2, 12}) {
      bytes[at] = static_cast<std::byte>(chunks);
      EXPECT_EQ(code_of({share_bytes(std::vector<std::byte>(bytes))}), ErrorCode::kCorruption)
          << chunks;
    }
    bytes[at] = std::byte{1};
    const auto got = decode({share_bytes(std::vector<std::byte>(bytes))});
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(std::get<Observation>(got.value().body).chunks[0].mean.size(), 13u);
  }
  EXPECT_EQ(found, 1);
}

// Floats that no honest sender writes: found in the bytes and replaced there.
TEST(MalformedMessage, NonFiniteFloatsFromAPeerAreRefused) {
  Observation observation;
  observation.chunks = {{std::vector<float>(8, 123.25f), 16}};
  const Frames frames = encoded({1, observation, {}});
  auto bytes = *frames[0];
  int replaced = 0;
  for (std::size_t at = 0; at + 4 <= bytes.size(); at += 4) {
    float value = 0;
    std::memcpy(&value, bytes.data() + at, 4);
    if (value != 123.25f || replaced == 1) continue;
    std::memcpy(bytes.data() + at, &kNan, 4);
    ++replaced;
  }
  ASSERT_EQ(replaced, 1);
  EXPECT_EQ(code_of({share_bytes(std::move(bytes))}), ErrorCode::kCorruption);
}

}  // namespace
}  // namespace memslot::wire
