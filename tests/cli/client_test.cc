// The client's end of the wire, against a scripted controller.
#include "cli/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "shared/transport/zmq_channel.h"
#include "shared/wire/codec.h"
#include "tests/support/temporary_folder.h"
#include "tests/transport/fake_controller.h"

namespace memslot::cli {
namespace {

using std::chrono::milliseconds;

class ClientTest : public testing::Test {
 protected:
  void serve(FakeController::Answer answer) {
    ServerOptions options;
    options.endpoint = endpoint_;
    controller_ = std::make_unique<FakeController>(bind_channel(options).value(),
                                                   /*incarnation=*/100, std::move(answer));
  }
  std::unique_ptr<Client> connect() {
    ClientConfig config;
    config.endpoint = endpoint_;
    config.timeout = std::chrono::seconds(3);
    auto client = Client::connect(config);
    EXPECT_TRUE(client) << client.error().message;
    return client ? std::move(client).value() : nullptr;
  }

  testing_support::TemporaryFolder folder_;
  const std::string endpoint_ = "ipc://" + folder_.path() + "/link";
  std::unique_ptr<FakeController> controller_;
};

TEST_F(ClientTest, ARequestThatWasLostIsSentAgainUnderItsId) {
  std::atomic<int> asked{0};
  serve([&](const wire::Message&) -> std::vector<wire::Body> {
    if (++asked < 2) return {};  // lost on the way
    return {wire::AdminReply{R"({"asked":2})"}};
  });
  const auto client = connect();
  const auto reply = client->ask("peers.ls", nlohmann::json::object(), nullptr);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ((*reply.value().result)["asked"], 2);
  const auto requests = controller_->requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0], requests[1]);
}

TEST_F(ClientTest, AControllerThatLostSightOfItIsGreetedAgainAndAskedAgain) {
  std::atomic<bool> first{true};
  serve([&](const wire::Message& message) -> std::vector<wire::Body> {
    if (first.exchange(false)) {
      controller_->forget();
      controller_->send({0, wire::ErrorReply{ErrorCode::kUnavailable, "say Hello"}, {}});
      return {};
    }
    return {wire::AdminReply{std::get<wire::AdminRequest>(message.body).arguments}};
  });
  const auto client = connect();
  const auto reply = client->ask("peers.ls", {{"again", true}}, nullptr);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ((*reply.value().result)["again"], true);
  EXPECT_EQ(controller_->hellos(), 2u);
}

TEST_F(ClientTest, WhatTheControllerSaysOfTheLinkIsTheRequestsError) {
  serve([&](const wire::Message&) -> std::vector<wire::Body> {
    controller_->send(
        {0, wire::ErrorReply{ErrorCode::kMismatch, "protocol version: expected 2, found 3"}, {}});
    return {};
  });
  const auto client = connect();
  const auto reply = client->ask("peers.ls", nlohmann::json::object(), nullptr);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kMismatch);
  EXPECT_NE(reply.error().message.find("expected 2, found 3"), std::string::npos);
}

TEST_F(ClientTest, AnotherIncarnationIsARestart) {
  serve([&](const wire::Message&) -> std::vector<wire::Body> {
    controller_->send({0, wire::Heartbeat{101}, {}});
    return {};
  });
  const auto client = connect();
  const auto reply = client->ask("peers.ls", nlohmann::json::object(), nullptr);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(reply.error().message.find("restarted"), std::string::npos);
}

}  // namespace
}  // namespace memslot::cli
