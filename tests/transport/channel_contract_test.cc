#include "shared/transport/channel.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "shared/base/digest.h"  // bytes_of
#include "shared/wire/limits.h"
#include "tests/transport/links.h"

namespace {
thread_local bool slow_poll = false;
}

// In place of libc's, for this program: on demand, a thread that is slow to begin to wait.
extern "C" int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (slow_poll) std::this_thread::sleep_for(std::chrono::milliseconds(4));
  // The kernel writes what is left of the timeout; libc's interface does not.
  timespec left = timeout == nullptr ? timespec{} : *timeout;
  return static_cast<int>(::syscall(SYS_ppoll, fds, count, timeout == nullptr ? nullptr : &left,
                                    mask, sizeof(unsigned long)));
}

namespace memslot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint in(Duration d) { return std::chrono::steady_clock::now() + d; }
TimePoint soon() { return in(seconds(5)); }

SharedBytes text(const std::string& s) {
  const auto bytes = bytes_of(s);
  return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}
std::string text(const SharedBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}
std::string first(const Result<Packet>& packet) {
  if (!packet) return "(" + packet.error().message + ")";
  return text(packet.value().frames.at(0));
}
ErrorCode code(const Status& status) { return status ? ErrorCode::kInternal : status.error().code; }
ErrorCode code(const Result<Packet>& packet) {
  return packet ? ErrorCode::kInternal : packet.error().code;
}

class ChannelContract : public testing::TestWithParam<LinkCase> {
 protected:
  void open() {
    auto bound = link_->bind();
    ASSERT_TRUE(bound) << bound.error().message;
    server_ = std::move(bound).value();
    client_ = link_->connect("client-a");
  }
  // Opens both and exchanges one packet each way; afterwards the server knows the peer.
  void meet() {
    open();
    ASSERT_TRUE(client_->send({"", {text("hello")}}));
    const auto hello = server_->receive(soon());
    ASSERT_EQ(first(hello), "hello");
    peer_ = hello.value().peer;
  }

  std::unique_ptr<Link> link_ = GetParam().make();
  std::unique_ptr<Channel> server_, client_;
  PeerId peer_;
};

TEST_P(ChannelContract, APacketArrivesWholeAndItsReplyFindsTheWayBack) {
  meet();
  ASSERT_TRUE(server_->send({peer_, {text("envelope"), text(""), text("part two")}}));
  const auto got = client_->receive(soon());
  ASSERT_TRUE(got) << got.error().message;
  ASSERT_EQ(got.value().frames.size(), 3U);
  EXPECT_EQ(got.value().peer, "");
  EXPECT_EQ(text(got.value().frames[0]), "envelope");
  EXPECT_EQ(text(got.value().frames[1]), "");
  EXPECT_EQ(text(got.value().frames[2]), "part two");
}

TEST_P(ChannelContract, PacketsArriveInOrderBothWays) {
  meet();
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(client_->send({"", {text(std::to_string(i))}}));
    ASSERT_TRUE(server_->send({peer_, {text(std::to_string(1000 + i))}}));
  }
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(first(server_->receive(soon())), std::to_string(i));
    ASSERT_EQ(first(client_->receive(soon())), std::to_string(1000 + i));
  }
}

TEST_P(ChannelContract, RepliesReachTheClientThatAsked) {
  open();
  const auto other = link_->connect("client-b");
  ASSERT_TRUE(client_->send({"", {text("a")}}));
  ASSERT_TRUE(other->send({"", {text("b")}}));
  for (int i = 0; i < 2; ++i) {
    const auto request = server_->receive(soon());
    ASSERT_TRUE(request);
    ASSERT_TRUE(server_->send({request.value().peer, {text("for " + first(request))}}));
  }
  EXPECT_EQ(first(client_->receive(soon())), "for a");
  EXPECT_EQ(first(other->receive(soon())), "for b");
}

TEST_P(ChannelContract, ALargePartArrivesUnchanged) {
  meet();
  std::vector<std::byte> bytes(8 << 20);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 >> 3);
  const auto part = share_bytes(std::move(bytes));
  ASSERT_TRUE(server_->send({peer_, {text("e"), part}}));
  const auto got = client_->receive(soon());
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_TRUE(*got.value().frames.at(1) == *part);
}

TEST_P(ChannelContract, AClientMaySendBeforeTheServerIsThere) {
  client_ = link_->connect("early");
  ASSERT_TRUE(client_->send({"", {text("first")}}));
  server_ = link_->bind().value();
  EXPECT_EQ(first(server_->receive(soon())), "first");
}

// Sends until the queue is full, which must come before `most` packets; then what was sent arrives.
void fill_and_drain(Channel& from, const PeerId& to, Channel& at) {
  const auto part = share_bytes(std::vector<std::byte>(1 << 20));
  constexpr int kMost = 200;
  int sent = 0;
  Status status = ok();
  while (sent < kMost && status) {
    status = from.send({to, {text(std::to_string(sent)), part}});
    if (status) ++sent;
  }
  ASSERT_EQ(code(status), ErrorCode::kOverloaded) << sent << " MiB were taken without a bound";
  EXPECT_EQ(from.stats().overloaded, 1U);
  for (int i = 0; i < sent; ++i) ASSERT_EQ(first(at.receive(soon())), std::to_string(i));
  ASSERT_TRUE(from.send({to, {text("again")}}));
  EXPECT_EQ(first(at.receive(soon())), "again");
}

TEST_P(ChannelContract, AFullQueueToTheServerRefusesAndRecovers) {
  meet();
  fill_and_drain(*client_, "", *server_);
}

TEST_P(ChannelContract, AFullQueueToAClientRefusesAndRecovers) {
  meet();
  fill_and_drain(*server_, peer_, *client_);
}

TEST_P(ChannelContract, OneSlowClientDoesNotRefuseAnother) {
  meet();
  const auto other = link_->connect("client-b");
  ASSERT_TRUE(other->send({"", {text("b")}}));
  const auto hello = server_->receive(soon());
  ASSERT_TRUE(hello);
  const auto part = share_bytes(std::vector<std::byte>(1 << 20));
  Status status = ok();
  for (int i = 0; i < 200 && status; ++i) status = server_->send({peer_, {text("a"), part}});
  ASSERT_EQ(code(status), ErrorCode::kOverloaded);
  ASSERT_TRUE(server_->send({hello.value().peer, {text("still")}}));
  EXPECT_EQ(first(other->receive(soon())), "still");
}

TEST_P(ChannelContract, ManyTinyPacketsAreBoundedToo) {
  client_ = link_->connect("early");  // nobody takes them away, the kernel neither
  const auto nothing = text("");
  Status status = ok();
  for (std::size_t sent = 0; sent < kLinkBytes / 64 && status; ++sent) {
    status = client_->send({"", {nothing}});
  }
  EXPECT_EQ(code(status), ErrorCode::kOverloaded);
}

TEST_P(ChannelContract, AnUnknownPeerIsUnavailable) {
  open();
  EXPECT_EQ(code(server_->send({"nobody", {text("x")}})), ErrorCode::kUnavailable);
}

TEST_P(ChannelContract, APacketWithoutFramesOrWithTooManyIsRefused) {
  meet();
  EXPECT_EQ(code(client_->send({"", {}})), ErrorCode::kInvalidArgument);
  const std::vector<SharedBytes> many(wire::kMaxParts + 2, text("x"));
  EXPECT_EQ(code(client_->send({"", many})), ErrorCode::kInvalidArgument);
}

TEST_P(ChannelContract, AnIncomingEnvelopeOverTheLimitIsDroppedAndCounted) {
  meet();
  const auto large = share_bytes(std::vector<std::byte>(wire::kMaxEnvelopeBytes + 1));
  ASSERT_TRUE(client_->send({"", {large}}));
  ASSERT_TRUE(client_->send({"", {text("next")}}));
  EXPECT_EQ(first(server_->receive(soon())), "next");
  EXPECT_EQ(server_->stats().dropped, 1U);
  EXPECT_EQ(server_->stats().received, 2U);
}

TEST_P(ChannelContract, ReceiveGivesUpAtItsDeadline) {
  open();
  const auto deadline = in(milliseconds(30));
  EXPECT_EQ(code(server_->receive(deadline)), ErrorCode::kTimeout);
  EXPECT_GE(std::chrono::steady_clock::now(), deadline);
}

TEST_P(ChannelContract, ADeadlineInThePastStillTakesWhatIsThere) {
  meet();
  ASSERT_TRUE(client_->send({"", {text("there")}}));
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(first(server_->receive(TimePoint())), "there");
  EXPECT_EQ(code(server_->receive(TimePoint())), ErrorCode::kTimeout);
}

TEST_P(ChannelContract, WakeEndsAReceiveThatWaits) {
  open();
  std::thread waker([&] {
    std::this_thread::sleep_for(milliseconds(20));
    server_->wake();
  });
  EXPECT_EQ(code(server_->receive(soon())), ErrorCode::kUnavailable);
  waker.join();
}

TEST_P(ChannelContract, WakeBeforeReceiveEndsTheNextOneOnce) {
  open();
  server_->wake();
  EXPECT_EQ(code(server_->receive(soon())), ErrorCode::kUnavailable);
  EXPECT_EQ(code(server_->receive(in(milliseconds(5)))), ErrorCode::kTimeout);
}

TEST_P(ChannelContract, CloseEndsAReceiveThatWaitsAndAllThatFollow) {
  open();
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(20));
    client_->close();
  });
  EXPECT_EQ(code(client_->receive(soon())), ErrorCode::kCancelled);
  closer.join();
  client_->close();
  EXPECT_EQ(code(client_->receive(soon())), ErrorCode::kCancelled);
  EXPECT_EQ(code(client_->send({"", {text("x")}})), ErrorCode::kUnavailable);
}

TEST_P(ChannelContract, AServerThatComesBackIsFoundAgain) {
  meet();
  server_->close();
  server_.reset();
  server_ = link_->bind().value();
  // Nothing is promised across the reconnect, so the client repeats itself.
  Result<Packet> got = Error{};
  for (int i = 0; i < 100 && !got; ++i) {
    ASSERT_TRUE(client_->send({"", {text("anyone?")}}));
    got = server_->receive(in(milliseconds(50)));
  }
  ASSERT_EQ(first(got), "anyone?");
  ASSERT_TRUE(server_->send({got.value().peer, {text("yes")}}));
  EXPECT_EQ(first(client_->receive(soon())), "yes");
}

TEST_P(ChannelContract, AClientThatComesBackUnderItsNameTakesItsPlace) {
  meet();
  auto second = link_->connect("client-a");  // the first did not say good-bye
  ASSERT_TRUE(second->send({"", {text("me again")}}));
  const auto got = server_->receive(soon());
  ASSERT_EQ(first(got), "me again");
  EXPECT_EQ(got.value().peer, peer_);
  client_->close();
  ASSERT_TRUE(server_->send({peer_, {text("welcome")}}));
  EXPECT_EQ(first(second->receive(soon())), "welcome");
}

// A receive() that waits must not miss a packet because another thread used the socket between its
// arrival and poll(). slow_poll widens that moment. Every ping waits for its answer, so that a
// hidden one is not uncovered by the next.
TEST_P(ChannelContract, SendersInOtherThreadsNeverHideAnArrival) {
  meet();
  std::atomic<bool> stop{false};
  std::thread answers([&] {
    slow_poll = true;
    while (client_->receive(in(seconds(60)))) EXPECT_TRUE(client_->send({"", {text("answer")}}));
  });
  std::thread noise([&] {
    while (!stop) {
      EXPECT_TRUE(client_->send({"", {text("noise")}}));
      // ZeroMQ looks for news in send() at most once a millisecond.
      std::this_thread::sleep_for(std::chrono::microseconds(1500));
    }
  });
  bool answered = true;
  for (int i = 0; i < 20 && answered; ++i) {
    ASSERT_TRUE(server_->send({peer_, {text("ping")}}));
    const auto deadline = in(seconds(2));
    std::string got = "noise";
    while (got == "noise") got = first(server_->receive(deadline));
    answered = got == "answer";
  }
  EXPECT_TRUE(answered) << "a packet lay unseen for two seconds";
  stop = true;
  noise.join();
  client_->wake();
  answers.join();
}

TEST_P(ChannelContract, ManyThreadsMaySendAndEachKeepsItsOrder) {
  meet();
  constexpr int kEach = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        EXPECT_TRUE(client_->send({"", {text(std::to_string(t)), text(std::to_string(i))}}));
      }
    });
  }
  std::map<std::string, int> next;
  for (int i = 0; i < 4 * kEach; ++i) {
    const auto got = server_->receive(soon());
    ASSERT_TRUE(got) << got.error().message;
    const auto& frames = got.value().frames;
    ASSERT_EQ(frames.size(), 2U);
    EXPECT_EQ(text(frames[1]), std::to_string(next[text(frames[0])]++));
  }
  for (auto& thread : threads) thread.join();
}

TEST_P(ChannelContract, ASecondServerOnTheSameEndpointIsBusy) {
  open();
  const auto second = link_->bind();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy) << second.error().message;
}

INSTANTIATE_TEST_SUITE_P(Links, ChannelContract, testing::ValuesIn(link_cases()),
                         [](const auto& link) { return std::string(link.param.name); });

}  // namespace
}  // namespace memslot
