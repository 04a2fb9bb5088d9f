// The client's end of the wire, against a scripted controller.
#include "cli/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
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
  std::unique_ptr<Client> connect(Duration timeout = std::chrono::seconds(3)) {
    ClientConfig config;
    config.endpoint = endpoint_;
    config.timeout = timeout;
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

TEST_F(ClientTest, EventsComeInOrderAndTheLastIsTheResult) {
  serve([&](const wire::Message&) -> std::vector<wire::Body> {
    return {wire::TaskEvent{0, R"({"n":1})", false, {}},
            wire::TaskEvent{0, R"({"n":2})", false, {}},
            wire::TaskEvent{0, R"({"n":3})", true, {}}};
  });
  const auto client = connect();
  for (int round = 0; round < 3; ++round) {
    std::vector<int> seen;
    const auto last = client->run("generate", nlohmann::json::object(), [&](const auto& event) {
      seen.push_back(event["n"].template get<int>());
    });
    ASSERT_TRUE(last) << last.error().message;
    EXPECT_EQ(seen, (std::vector<int>{1, 2}));
    EXPECT_EQ((*last.value())["n"], 3);
  }
}

TEST_F(ClientTest, ATasksErrorIsTheRuns) {
  serve([&](const wire::Message&) -> std::vector<wire::Body> {
    return {wire::TaskEvent{0, "{}", true, wire::ErrorReply{ErrorCode::kNotFound, "no memory"}}};
  });
  const auto done = connect()->run("generate", nlohmann::json::object(), [](const auto&) {});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(done.error().message, "no memory");
}

TEST_F(ClientTest, AControllerThatGoesAwayIsGivenUpAfterTheTimeout) {
  serve([](const wire::Message&) -> std::vector<wire::Body> { return {}; });
  const auto client = connect(milliseconds(300));
  std::thread stopper([&] {
    while (controller_->requests().empty()) std::this_thread::yield();
    controller_.reset();
  });
  const auto reply = client->ask("peers.ls", nlohmann::json::object(), nullptr);
  stopper.join();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(reply.error().message.find("for 0.3 s"), std::string::npos) << reply.error().message;
}

TEST_F(ClientTest, CtrlCAsksForTheTasksEndAndASecondOneGivesUp) {
  std::atomic<int> cancels{0};
  serve([&](const wire::Message& message) -> std::vector<wire::Body> {
    if (std::holds_alternative<wire::CancelTask>(message.body)) ++cancels;
    return {};
  });
  const auto client = connect();
  std::thread user([&] {
    while (controller_->requests().empty()) std::this_thread::yield();
    std::raise(SIGINT);
    while (cancels == 0) std::this_thread::yield();
    std::raise(SIGINT);
  });
  const auto done = client->run("generate", nlohmann::json::object(), [](const auto&) {});
  user.join();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(cancels, 1);
}

}  // namespace
}  // namespace memslot::cli
