// What the ZeroMQ channel does with packets that no channel of ours would send.
#include <gtest/gtest.h>

#include <zmq.hpp>

#include "shared/transport/zmq_channel.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using std::chrono::seconds;

TimePoint soon() { return std::chrono::steady_clock::now() + seconds(5); }

class ZmqLimits : public testing::Test {
 protected:
  ZmqLimits() {
    ServerOptions options;
    options.endpoint = "ipc://" + folder_.path() + "/socket";
    server_ = bind_channel(options).value();
    ClientOptions client;
    client.endpoint = options.endpoint;
    client_ = connect_channel(client).value();
    raw_.set(zmq::sockopt::linger, 0);
    raw_.connect(options.endpoint);
  }
  void send_raw(const std::string& frame, bool more) {
    raw_.send(zmq::buffer(frame), more ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
  std::string next() {
    const auto packet = server_->receive(soon());
    if (!packet) return packet.error().message;
    const auto& bytes = *packet.value().frames.at(0);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  testing_support::TemporaryFolder folder_;
  zmq::context_t context_;
  zmq::socket_t raw_{context_, zmq::socket_type::dealer};
  std::unique_ptr<Channel> server_, client_;
};

TEST_F(ZmqLimits, APacketOfTooManyFramesIsDroppedAndCounted) {
  for (int i = 0; i < 100; ++i) send_raw("frame", /*more=*/i < 99);
  send_raw("next", /*more=*/false);
  EXPECT_EQ(next(), "next");
  EXPECT_EQ(server_->stats().dropped, 1u);
  EXPECT_EQ(server_->stats().received, 1u);
}

TEST_F(ZmqLimits, APacketThatIsNeverWholeHoldsNobodyElseUpAndIsNeverTaken) {
  const std::string frame(std::size_t{1} << 20, 'x');
  for (int i = 0; i < 16; ++i) send_raw(frame, /*more=*/true);
  ASSERT_TRUE(client_->send({"", {share_bytes(std::vector<std::byte>(4, std::byte{'a'}))}}));
  EXPECT_EQ(next(), "aaaa");
  raw_.close();  // its frames go with its connection
  ASSERT_TRUE(client_->send({"", {share_bytes(std::vector<std::byte>(4, std::byte{'b'}))}}));
  EXPECT_EQ(next(), "bbbb");
  EXPECT_EQ(server_->stats().received, 2u);
  EXPECT_EQ(server_->stats().dropped, 0u);
}

}  // namespace
}  // namespace memslot
