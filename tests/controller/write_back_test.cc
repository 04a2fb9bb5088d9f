#include "controller/step/write_back_handler.h"

#include <gtest/gtest.h>

#include "tests/controller/memories.h"

namespace memslot {
namespace {

const PeerId kPeer = "generator-1";

class WriteBackTest : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 rng(1);
    first_ = bank_.publish(
        {.id = "state", .keys = keys_around(centre_of(1), 4, 0.2f, rng), .signature = kDelta});
    ASSERT_TRUE(keeper_.build());
    wire::OpenSession open;
    open.session = 5;
    open.incarnation = 9;
    open.model = kDelta.model;
    open.slots = {{.layer = 3, .form = MlpForm::kSwiGlu, .d_model = kDim, .d_ff = 16}};
    open.namespaces = {"default"};
    ASSERT_TRUE(sessions_.open(kPeer, open));
  }
  wire::WriteBack request(const std::string& token, const MemoryPayload& payload) {
    wire::WriteBack out;
    out.session = 5;
    out.step = 3;
    out.expected = first_.token;
    out.version = first_;
    out.version.token = token;
    out.version.payload_bytes = payload.bytes().size();
    out.version.sha256 = sha256(payload.bytes());
    return out;
  }
  ErrorCode refused(const wire::WriteBack& request, std::span<const std::byte> payload) {
    const auto reply = handler_.handle(kPeer, request, payload, kFarDeadline);
    EXPECT_FALSE(reply);
    EXPECT_EQ(head().token, first_.token);
    return reply ? ErrorCode{} : reply.error().code;
  }
  MemoryVersion head() { return bank_.bank().head(first_.ref, kFarDeadline).value(); }

  const SlotSignature kDelta = slot_signature(MemoryKind::kDelta);
  TestBank bank_;
  IndexKeeper keeper_{bank_.bank(), bank_.clock(), [] {}};
  SessionTable sessions_;
  WriteBackHandler handler_{bank_.bank(), keeper_, sessions_};
  MemoryVersion first_;
  const MemoryPayload payload_ = small_payload(2.0f, kDelta);
};

TEST_F(WriteBackTest, PublishesANewVersionWithTheKeysOfItsParent) {
  const auto reply =
      handler_.handle(kPeer, request("t2", payload_), payload_.bytes(), kFarDeadline);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_FALSE(reply.value().conflict);
  const MemoryVersion now = head();
  EXPECT_EQ(now.ref.version, 2u);
  EXPECT_EQ(now.parent, first_.token);
  EXPECT_EQ(now.origin, VersionOrigin::kWriteBack);
  EXPECT_EQ(now.keys, 4u);
  EXPECT_EQ(keeper_.index().find("default", "state")->version.ref.version, 2u);
}

TEST_F(WriteBackTest, CarriesTheSourceTextOfItsAncestorThroughEveryVersion) {
  ASSERT_TRUE(handler_.handle(kPeer, request("t2", payload_), payload_.bytes(), kFarDeadline));
  EXPECT_EQ(bank_.bank().load_source(head(), kFarDeadline).value(), "some words");
  const MemoryPayload later = small_payload(3.0f, kDelta);
  auto third = request("t3", later);
  third.expected = "t2";
  ASSERT_TRUE(handler_.handle(kPeer, third, later.bytes(), kFarDeadline));
  EXPECT_EQ(head().ref.version, 3u);
  EXPECT_EQ(bank_.bank().load_source(head(), kFarDeadline).value(), "some words");
  // A lost one keeps it too.
  const MemoryPayload late = small_payload(4.0f, kDelta);
  ASSERT_TRUE(handler_.handle(kPeer, request("loser", late), late.bytes(), kFarDeadline));
  const auto branches = bank_.bank().branches(first_.ref, kFarDeadline).value();
  ASSERT_EQ(branches.size(), 1u);
  EXPECT_EQ(bank_.bank().load_source(branches[0], kFarDeadline).value(), "some words");
}

TEST_F(WriteBackTest, AParentWithoutASourceTextHasAChildWithoutOne) {
  const SlotSignature outer = slot_signature(MemoryKind::kLora);
  const MemoryPayload payload = small_payload(1.0f, outer);
  auto made = request("t1", payload);
  made.version.ref = {.ns = "default", .id = "made", .version = 0};
  made.version.signature = outer;
  made.expected.clear();
  ASSERT_TRUE(handler_.handle(kPeer, made, payload.bytes(), kFarDeadline));
  made.expected = "t1";
  made.version.token = "t2";
  const auto reply = handler_.handle(kPeer, made, payload.bytes(), kFarDeadline);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(bank_.bank().load_source(reply.value().version, kFarDeadline).error().code,
            ErrorCode::kNotFound);
}

TEST_F(WriteBackTest, IsSuccessAgainForTheSameToken) {
  ASSERT_TRUE(handler_.handle(kPeer, request("t2", payload_), payload_.bytes(), kFarDeadline));
  const auto again =
      handler_.handle(kPeer, request("t2", payload_), payload_.bytes(), kFarDeadline);
  ASSERT_TRUE(again);
  EXPECT_FALSE(again.value().conflict);
  EXPECT_EQ(again.value().version.ref.version, 2u);
  EXPECT_EQ(bank_.bank().history(first_.ref, kFarDeadline).value().size(), 2u);
}

TEST_F(WriteBackTest, KeepsTheLoserAsABranchAndSaysSo) {
  ASSERT_TRUE(handler_.handle(kPeer, request("winner", payload_), payload_.bytes(), kFarDeadline));
  const MemoryPayload late = small_payload(3.0f, kDelta);
  const auto reply = handler_.handle(kPeer, request("loser", late), late.bytes(), kFarDeadline);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_TRUE(reply.value().conflict);
  EXPECT_EQ(head().token, "winner");
  const auto branches = bank_.bank().branches(first_.ref, kFarDeadline).value();
  ASSERT_EQ(branches.size(), 1u);
  EXPECT_EQ(branches[0].token, "loser");
  EXPECT_EQ(keeper_.index().find("default", "state")->version.token, "winner");
}

TEST_F(WriteBackTest, RefusesWhatIsDamagedUnfitOrNotFinite) {
  auto damaged = request("t2", payload_);
  damaged.version.sha256.bytes[0] ^= 1;
  EXPECT_EQ(refused(damaged, payload_.bytes()), ErrorCode::kCorruption);
  auto short_one = request("t2", payload_);
  EXPECT_EQ(refused(short_one, payload_.bytes().first(40)), ErrorCode::kCorruption);
  const MemoryPayload nan = small_payload(std::nanf(""), kDelta);
  EXPECT_EQ(refused(request("t2", nan), nan.bytes()), ErrorCode::kCorruption);
  auto foreign = request("t2", payload_);
  foreign.version.signature.model = sha256(bytes_of("other"));
  EXPECT_EQ(refused(foreign, payload_.bytes()), ErrorCode::kMismatch);
  auto unlike = request("t2", payload_);
  unlike.version.signature.kind = MemoryKind::kMlp;
  EXPECT_EQ(refused(unlike, payload_.bytes()), ErrorCode::kMismatch);
  // Another kind's tensors under a signature that fits the slot.
  const MemoryPayload mlp =
      testing_support::signed_as(small_payload(2.0f, kDelta), MemoryKind::kMlp);
  auto disguised = request("t2", mlp);
  disguised.version.signature = mlp.signature();
  EXPECT_EQ(refused(disguised, mlp.bytes()), ErrorCode::kMismatch);
}

TEST_F(WriteBackTest, KnowsOnlyItsOwnSessionsAndNamespaces) {
  auto other = request("t2", payload_);
  other.session = 6;
  EXPECT_EQ(refused(other, payload_.bytes()), ErrorCode::kNotFound);
  auto hidden = request("t2", payload_);
  hidden.version.ref.ns = "private";
  EXPECT_EQ(refused(hidden, payload_.bytes()), ErrorCode::kNotFound);
  auto erased = request("t2", payload_);
  erased.expected = "never-a-head";
  EXPECT_EQ(refused(erased, payload_.bytes()), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace memslot
