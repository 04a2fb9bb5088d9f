// Who may talk: keys, the allow-list, and which endpoints need them.
#include <gtest/gtest.h>

#include <thread>

#include "shared/base/digest.h"  // bytes_of
#include "shared/transport/zmq_channel.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TimePoint in(Duration d) { return std::chrono::steady_clock::now() + d; }

Packet packet(const std::string& s) {
  const auto bytes = bytes_of(s);
  return {"", {std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end())}};
}

class Curve : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.endpoint = "tcp://127.0.0.1:0";
    options.keys = server_keys_;
    options.allowed_clients = {generate_keypair().value().public_key, client_keys_.public_key};
    auto bound = bind_channel(options);
    ASSERT_TRUE(bound) << bound.error().message;
    server_ = std::move(bound).value();
  }
  std::unique_ptr<Channel> client(const std::optional<KeyPair>& keys,
                                  const std::string& server_key) {
    ClientOptions options;
    options.endpoint = server_->endpoint();
    options.keys = keys;
    options.server_key = server_key;
    options.linger = Duration::zero();
    auto channel = connect_channel(options);
    EXPECT_TRUE(channel) << channel.error().message;
    return std::move(channel).value();
  }
  // Nothing of this client reaches the server, although a good client that comes later does.
  void expect_locked_out(Channel& stranger) {
    ASSERT_TRUE(stranger.send(packet("let me in")));
    std::this_thread::sleep_for(milliseconds(150));
    const auto good = client(client_keys_, server_keys_.public_key);
    ASSERT_TRUE(good->send(packet("good")));
    const auto got = server_->receive(in(seconds(5)));
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got.value().frames[0]->size(), 4U) << "the stranger's packet came through";
    EXPECT_EQ(server_->receive(in(milliseconds(50))).error().code, ErrorCode::kTimeout);
  }

  const KeyPair server_keys_ = generate_keypair().value();
  const KeyPair client_keys_ = generate_keypair().value();
  std::unique_ptr<Channel> server_;
};

TEST_F(Curve, AClientOnTheListIsLetInAndNamedByItsKey) {
  const auto good = client(client_keys_, server_keys_.public_key);
  ASSERT_TRUE(good->send(packet("hello")));
  const auto got = server_->receive(in(seconds(5)));
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got.value().user, client_keys_.public_key);
}

TEST_F(Curve, AClientWithAnotherKeyIsLockedOut) {
  const auto stranger = client(generate_keypair().value(), server_keys_.public_key);
  expect_locked_out(*stranger);
}

TEST_F(Curve, AClientWithoutKeysIsLockedOut) {
  const auto stranger = client(std::nullopt, "");
  expect_locked_out(*stranger);
}

TEST_F(Curve, AClientThatIsLockedOutLearnsWhy) {
  const auto failed = [&](Channel& channel) {
    EXPECT_TRUE(channel.send(packet("let me in")));
    for (const TimePoint end = in(seconds(5)); std::chrono::steady_clock::now() < end;) {
      EXPECT_FALSE(channel.receive(in(milliseconds(20))));
      const ChannelStats stats = channel.stats();
      if (stats.refused + stats.failed_handshakes > 0) return stats;
    }
    return ChannelStats{};
  };
  const auto stranger = client(generate_keypair().value(), server_keys_.public_key);
  EXPECT_GT(failed(*stranger).refused, 0U);
  const auto open = client(std::nullopt, "");
  EXPECT_GT(failed(*open).failed_handshakes, 0U);
  const auto misled = client(client_keys_, generate_keypair().value().public_key);
  EXPECT_GT(failed(*misled).failed_handshakes, 0U);
  const auto good = client(client_keys_, server_keys_.public_key);
  ASSERT_TRUE(good->send(packet("hello")));
  ASSERT_TRUE(server_->receive(in(seconds(5))));
  EXPECT_EQ(good->receive(in(milliseconds(50))).error().code, ErrorCode::kTimeout);
  EXPECT_EQ(good->stats().refused + good->stats().failed_handshakes, 0U);
}

TEST_F(Curve, AClientThatExpectsAnotherServerSendsItNothing) {
  const auto misled = client(client_keys_, generate_keypair().value().public_key);
  expect_locked_out(*misled);
}

TEST_F(Curve, TheSecretOfAnotherPairDoesNotOpen) {
  KeyPair forged = client_keys_;  // a public key from the list, without its secret
  forged.secret_key = generate_keypair().value().secret_key;
  const auto stranger = client(forged, server_keys_.public_key);
  expect_locked_out(*stranger);
}

TEST(CurveRule, LoopbackAndIpcDoWithoutKeysAndNothingElseDoes) {
  for (const char* local : {"tcp://127.0.0.1:7400", "tcp://127.8.9.10:1", "tcp://localhost:7400",
                            "ipc:///run/memslot/socket"}) {
    EXPECT_FALSE(require_curve(local)) << local;
  }
  for (const char* remote :
       {"tcp://0.0.0.0:7400", "tcp://*:7400", "tcp://10.0.0.1:7400", "tcp://127.example.org:7400",
        "tcp://127.0.0.1.example.org:7400", "tcp://localhost.example.org:1", "tcp://eth0:7400",
        "tcp://[::1]:7400", "udp://127.0.0.1:1", ""}) {
    EXPECT_TRUE(require_curve(remote)) << remote;
  }
}

ErrorCode bind_error(const ServerOptions& options, std::string* message = nullptr) {
  const auto channel = bind_channel(options);
  if (channel) return ErrorCode::kInternal;
  if (message != nullptr) *message = channel.error().message;
  return channel.error().code;
}

TEST(CurveRule, AnOpenEndpointWithoutKeysIsRefused) {
  ServerOptions options;
  options.endpoint = "tcp://0.0.0.0:0";
  std::string message;
  EXPECT_EQ(bind_error(options, &message), ErrorCode::kPermission);
  EXPECT_NE(message.find("expected CURVE keys"), std::string::npos) << message;
  ClientOptions client;
  client.endpoint = "tcp://192.0.2.1:7400";
  EXPECT_EQ(connect_channel(client).error().code, ErrorCode::kPermission);
}

TEST(CurveRule, KeysWithoutAnAllowListAreRefused) {
  ServerOptions options;
  options.endpoint = "tcp://127.0.0.1:0";
  options.keys = generate_keypair().value();
  EXPECT_EQ(bind_error(options), ErrorCode::kInvalidArgument);
  options.allowed_clients = {"too short"};
  EXPECT_EQ(bind_error(options), ErrorCode::kInvalidArgument);
}

TEST(CurveRule, HalfAClientsKeysAreRefused) {
  ClientOptions options;
  options.server_key = generate_keypair().value().public_key;
  EXPECT_EQ(connect_channel(options).error().code, ErrorCode::kInvalidArgument);
  options.server_key.clear();
  options.keys = generate_keypair().value();
  EXPECT_EQ(connect_channel(options).error().code, ErrorCode::kInvalidArgument);
}

TEST(Endpoint, OneThatIsNoEndpointIsRefusedByName) {
  for (const char* bad :
       {"", "127.0.0.1:7400", "tcp://127.0.0.1", "tcp://:7400", "ipc://", "inproc://x",
        "tcp://127.0.0.1:port", "tcp://127.0.0.1:70000", "tcp://127.0.0.1:-1"}) {
    ServerOptions options;
    options.endpoint = bad;
    EXPECT_EQ(bind_error(options), ErrorCode::kInvalidArgument) << bad;
  }
  ServerOptions options;
  options.endpoint = "ipc:///" + std::string(200, 'x');
  EXPECT_EQ(bind_error(options), ErrorCode::kInvalidArgument);
  options.endpoint = "ipc:///no/such/folder/socket";
  EXPECT_EQ(bind_error(options), ErrorCode::kInvalidArgument);
}

TEST(Endpoint, AnIpcPathLeftByADeadProcessIsTakenOver) {
  const testing_support::TemporaryFolder folder;
  ServerOptions options;
  options.endpoint = "ipc://" + folder.write("socket", "");
  EXPECT_TRUE(bind_channel(options));
}

TEST(Endpoint, AnIdentityThatCannotBeOneIsRefused) {
  ClientOptions options;
  options.identity = std::string(201, 'a');
  EXPECT_EQ(connect_channel(options).error().code, ErrorCode::kInvalidArgument);
  options.identity = std::string("\0a", 2);
  EXPECT_EQ(connect_channel(options).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace memslot
