#include "tests/transport/links.h"

#include <gtest/gtest.h>

#include "shared/transport/joined_channel.h"
#include "shared/transport/loopback_channel.h"
#include "shared/transport/zmq_channel.h"
#include "tests/support/temporary_folder.h"

namespace memslot {
namespace {

class LoopbackLink final : public Link {
 public:
  Result<std::unique_ptr<Channel>> bind() override { return network_->bind(); }
  std::unique_ptr<Channel> connect(const std::string& identity) override {
    return network_->connect(identity);
  }

 private:
  std::shared_ptr<LoopbackNetwork> network_ = LoopbackNetwork::make({kLinkBytes});
};

class ZmqLink : public Link {
 public:
  enum class Over { kTcp, kIpc };
  ZmqLink(Over over, bool curve)
      : endpoint_(over == Over::kTcp ? "tcp://127.0.0.1:0" : "ipc://" + folder_.path() + "/socket"),
        curve_(curve) {
    if (!curve_) return;
    server_keys_ = generate_keypair().value();
    client_keys_ = generate_keypair().value();
  }

  Result<std::unique_ptr<Channel>> bind() override {
    ServerOptions options;
    options.endpoint = endpoint_;
    options.max_pending_bytes = kLinkBytes;
    options.max_inbound = 4;
    if (curve_) {
      options.keys = server_keys_;
      options.allowed_clients = {client_keys_.public_key};
    }
    auto channel = bind_channel(options);
    if (channel) endpoint_ = channel.value()->endpoint();  // the port, for the next bind
    return channel;
  }

  std::unique_ptr<Channel> connect(const std::string& identity) override {
    choose_port();
    ClientOptions options;
    options.endpoint = endpoint_;
    options.identity = identity;
    options.max_pending_bytes = kLinkBytes;
    options.max_inbound = 4;
    if (curve_) {
      options.keys = client_keys_;
      options.server_key = server_keys_.public_key;
    }
    auto channel = connect_channel(options);
    EXPECT_TRUE(channel) << channel.error().message;
    return std::move(channel).value();
  }

 private:
  // A client that comes first needs to know the port: bind once and let go.
  void choose_port() {
    if (!endpoint_.ends_with(":0")) return;
    EXPECT_TRUE(bind());
  }

  testing_support::TemporaryFolder folder_;
  std::string endpoint_;
  const bool curve_;
  KeyPair server_keys_, client_keys_;
};

// As the controller is reached from outside while it has clients inside, too.
class JoinedLink final : public ZmqLink {
 public:
  JoinedLink() : ZmqLink(Over::kTcp, /*curve=*/false) {}
  Result<std::unique_ptr<Channel>> bind() override {
    MEMSLOT_TRY(auto outer, ZmqLink::bind());
    auto joined = std::make_unique<JoinedChannel>(std::move(outer), LoopbackOptions{kLinkBytes});
    inside_ = joined->connect("inside");
    return std::unique_ptr<Channel>(std::move(joined));
  }

 private:
  std::unique_ptr<Channel> inside_;
};

template <ZmqLink::Over over, bool curve>
std::unique_ptr<Link> make_zmq() {
  return std::make_unique<ZmqLink>(over, curve);
}

}  // namespace

std::vector<LinkCase> link_cases() {
  return {
      {"Loopback", [] { return std::unique_ptr<Link>(new LoopbackLink); }},
      {"ZmqTcp", &make_zmq<ZmqLink::Over::kTcp, false>},
      {"ZmqIpc", &make_zmq<ZmqLink::Over::kIpc, false>},
      {"ZmqTcpCurve", &make_zmq<ZmqLink::Over::kTcp, true>},
      {"Joined", [] { return std::unique_ptr<Link>(new JoinedLink); }},
  };
}

}  // namespace memslot
