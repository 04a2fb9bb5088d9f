#include "shared/transport/joined_channel.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "shared/base/digest.h"  // bytes_of
#include "shared/transport/zmq_channel.h"

namespace memslot {
namespace {

TimePoint soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(5); }
TimePoint now() { return std::chrono::steady_clock::now(); }

Packet packet(const std::string& text, PeerId to = {}) {
  const auto bytes = bytes_of(text);
  return {std::move(to), {share_bytes({bytes.begin(), bytes.end()})}};
}
std::string text(const Packet& packet) {
  return {reinterpret_cast<const char*>(packet.frames[0]->data()), packet.frames[0]->size()};
}

class Joined : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.endpoint = "tcp://127.0.0.1:0";
    auto outer = bind_channel(options);
    ASSERT_TRUE(outer) << outer.error().message;
    server_ = std::make_unique<JoinedChannel>(std::move(outer).value());
  }
  std::unique_ptr<Channel> outside() {
    ClientOptions options;
    options.endpoint = server_->endpoint();
    return std::move(connect_channel(options)).value();
  }

  std::unique_ptr<JoinedChannel> server_;
};

TEST_F(Joined, CarriesWhatInsideAndOutsideSayBothWays) {
  const auto inner = server_->connect("token:1");
  const auto other = server_->connect("token:2");
  const auto outer = outside();
  ASSERT_TRUE(inner->send(packet("a")));
  ASSERT_TRUE(other->send(packet("b")));
  ASSERT_TRUE(outer->send(packet("c")));
  std::map<std::string, std::pair<std::string, PeerId>> by_text;
  for (int i = 0; i < 3; ++i) {
    const auto got = server_->receive(soon());
    ASSERT_TRUE(got) << got.error().message;
    by_text[text(got.value())] = {got.value().user, got.value().peer};
  }
  EXPECT_EQ(by_text["a"].first, "token:1");
  EXPECT_EQ(by_text["b"].first, "token:2");
  EXPECT_EQ(by_text["c"].first, "");
  for (const auto& [said, from] : by_text) {
    ASSERT_TRUE(server_->send(packet("to " + said, from.second)));
  }
  EXPECT_EQ(text(inner->receive(soon()).value()), "to a");
  EXPECT_EQ(text(other->receive(soon()).value()), "to b");
  EXPECT_EQ(text(outer->receive(soon()).value()), "to c");
}

// Nobody outside can be taken for somebody inside.
TEST_F(Joined, NamesOfInsideBeginAsNoOuterNameCan) {
  const auto inner = server_->connect("token:1");
  ASSERT_TRUE(inner->send(packet("a")));
  const PeerId id = server_->receive(soon()).value().peer;
  EXPECT_EQ(id[0], '\0');
  EXPECT_GT(id.size(), 5u);  // libzmq's own are of five bytes
  ClientOptions options;
  options.endpoint = server_->endpoint();
  options.identity = id;
  const auto impostor = connect_channel(options);
  if (!impostor) return;  // refused at once, as it may
  static_cast<void>(impostor.value()->send(packet("b")));
  const auto got = server_->receive(now() + std::chrono::milliseconds(300));
  if (got) {
    EXPECT_NE(got.value().peer, id);
    EXPECT_EQ(got.value().user, "");
  }
}

TEST_F(Joined, AWaitingReceiveIsWokenByAnInnerPacketAndByWakeAlone) {
  const auto inner = server_->connect("token:1");
  std::thread sender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ASSERT_TRUE(inner->send(packet("late")));
  });
  const auto got = server_->receive(soon());
  sender.join();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(text(got.value()), "late");
  // What woke it then wakes it no second time.
  EXPECT_EQ(server_->receive(now() + std::chrono::milliseconds(50)).error().code,
            ErrorCode::kTimeout);
  server_->wake();
  EXPECT_EQ(server_->receive(soon()).error().code, ErrorCode::kUnavailable);
}

TEST_F(Joined, NothingIsLostWhereManySendAtOnce) {
  constexpr int kClients = 8, kEach = 500;
  std::vector<std::thread> senders;
  for (int c = 0; c < kClients; ++c) {
    senders.emplace_back([this, c] {
      const auto end = server_->connect("u" + std::to_string(c));
      for (int i = 0; i < kEach; ++i) {
        ASSERT_TRUE(end->send(packet(std::to_string(c) + "/" + std::to_string(i))));
      }
      ASSERT_TRUE(end->receive(soon()));  // until all have arrived
    });
  }
  std::set<std::string> seen;
  std::map<PeerId, int> count;
  while (seen.size() < kClients * kEach) {
    const auto got = server_->receive(soon());
    ASSERT_TRUE(got) << got.error().message << " after " << seen.size();
    seen.insert(text(got.value()));
    if (++count[got.value().peer] == kEach) {
      ASSERT_TRUE(server_->send(packet("done", got.value().peer)));
    }
  }
  for (std::thread& sender : senders) sender.join();
}

TEST_F(Joined, AnInnerEndOutlivesTheServer) {
  const auto inner = server_->connect("token:1");
  server_.reset();
  static_cast<void>(inner->send(packet("a")));
  EXPECT_FALSE(inner->receive(now()));
}

}  // namespace
}  // namespace memslot
