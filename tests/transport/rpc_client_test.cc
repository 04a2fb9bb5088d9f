#include "shared/transport/rpc_client.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "shared/transport/loopback_channel.h"
#include "shared/transport/zmq_channel.h"
#include "tests/support/faulty_channel.h"
#include "tests/support/temporary_folder.h"
#include "tests/transport/fake_controller.h"

namespace memslot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using wire::Message;

TimePoint in(Duration d) { return std::chrono::steady_clock::now() + d; }
TimePoint soon() { return in(seconds(5)); }

// "echo": its arguments; "silence": nothing; "slow": after 120 ms; "fail": an ErrorReply.
std::vector<wire::Body> answer(const Message& message) {
  if (std::holds_alternative<wire::SubmitTask>(message.body)) {
    return {wire::TaskEvent{0, "one", false, {}}, wire::TaskEvent{0, "two", false, {}},
            wire::TaskEvent{0, "done", true, {}}};
  }
  const auto* request = std::get_if<wire::AdminRequest>(&message.body);
  if (request == nullptr || request->verb == "silence") return {};
  if (request->verb == "fail") return {wire::ErrorReply{ErrorCode::kNotFound, "no such thing"}};
  if (request->verb == "slow") std::this_thread::sleep_for(milliseconds(120));
  return {wire::AdminReply{request->arguments}};
}

Message ask(const std::string& verb, const std::string& arguments = "x") {
  return {0, wire::AdminRequest{verb, arguments}, {}};
}

std::string result(const Result<Message>& reply) {
  if (!reply) return "(" + reply.error().message + ")";
  const auto* body = std::get_if<wire::AdminReply>(&reply.value().body);
  return body == nullptr ? "(another body)" : body->result;
}

class RpcClientTest : public testing::Test {
 protected:
  explicit RpcClientTest(bool persists = true) {
    start_controller(100);
    RpcOptions options;
    options.persists = persists;
    options.hello.incarnation = 7;
    options.retry = milliseconds(40);
    options.hello_retry = milliseconds(20);
    options.max_in_flight = 8;
    RpcHandlers handlers;
    handlers.on_message = [this](Message m) {
      const std::lock_guard lock(mutex_);
      messages_.push_back(std::move(m));
      changed_.notify_all();
    };
    handlers.on_connected = [this](const wire::HelloReply& reply, bool restarted) {
      std::this_thread::sleep_for(connected_pause_);
      const std::lock_guard lock(mutex_);
      connections_.push_back({reply.incarnation, restarted});
      changed_.notify_all();
    };
    handlers.on_lost = [this] {
      const std::lock_guard lock(mutex_);
      ++lost_;
      changed_.notify_all();
    };
    client_ = std::make_unique<RpcClient>(
        std::make_unique<FaultyChannel>(network_->connect("generator"), script_), options,
        handlers);
  }

  void start_controller(std::uint64_t incarnation) {
    controller_.reset();
    controller_ = std::make_unique<FakeController>(network_->bind().value(), incarnation, &answer);
  }
  void connect() {
    client_->start();
    const auto status = client_->wait_connected(soon());
    ASSERT_TRUE(status) << status.error().message;
  }
  // Waits until `condition` holds of the handlers' records.
  template <class Condition>
  bool eventually(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(5), condition);
  }

  std::shared_ptr<LoopbackNetwork> network_ = LoopbackNetwork::make();
  std::shared_ptr<FaultScript> script_ = std::make_shared<FaultScript>();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Message> messages_;
  std::vector<std::pair<std::uint64_t, bool>> connections_;
  int lost_ = 0;
  milliseconds connected_pause_{0};
  std::unique_ptr<FakeController> controller_;
  std::unique_ptr<RpcClient> client_;
};

TEST_F(RpcClientTest, ACallReturnsItsReply) {
  connect();
  EXPECT_EQ(result(client_->call(ask("echo", "hello"), soon())), "hello");
  EXPECT_TRUE(client_->connected());
}

TEST_F(RpcClientTest, WhoWaitedForTheConnectionFindsItsHandlerDone) {
  connected_pause_ = milliseconds(30);
  connect();
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(connections_.size(), 1U);
}

TEST_F(RpcClientTest, AnErrorReplyIsTheCallsError) {
  connect();
  const auto reply = client_->call(ask("fail"), soon());
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(reply.error().message, "no such thing");
}

TEST_F(RpcClientTest, ARequestThatMayNotBeSentFailsAtOnce) {
  connect();
  const auto reply =
      client_->call({0, wire::ErrorReply{static_cast<ErrorCode>(0), ""}, {}}, soon());
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RpcClientTest, ALostRequestIsSentAgain) {
  connect();
  script_->on_send(script_->sent(), Fault::kDrop);
  EXPECT_EQ(result(client_->call(ask("echo", "again"), soon())), "again");
  EXPECT_EQ(controller_->requests().size(), 1U);
  EXPECT_EQ(client_->stats().resent, 1U);
}

TEST_F(RpcClientTest, ALostReplyIsAskedForUnderTheSameRequestId) {
  connect();
  script_->on_receive(script_->received(), Fault::kDrop);
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x");
  const auto requests = controller_->requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0], requests[1]);
}

TEST_F(RpcClientTest, PausesBetweenRepetitionsDoubleUpToTheirLimit) {
  client_.reset();
  RpcOptions options;
  options.retry = milliseconds(10);
  options.longest_retry = milliseconds(40);
  options.hello_retry = milliseconds(20);
  RpcClient patient(network_->connect("patient"), options, {});
  patient.start();
  ASSERT_TRUE(patient.wait_connected(soon()));
  EXPECT_FALSE(patient.call(ask("silence"), in(milliseconds(400))));
  // 10 + 20 + 40 + 40 ...: at most 11 repetitions in 400 ms, and 40 without doubling.
  EXPECT_LE(patient.stats().resent, 11U);
  EXPECT_GE(patient.stats().resent, 1U);
}

TEST_F(RpcClientTest, ItKnowsWhenTheControllerWasLastHeardOf) {
  const auto before = std::chrono::steady_clock::now();
  connect();
  const auto first = client_->heard();
  EXPECT_GE(first, before);
  std::this_thread::sleep_for(milliseconds(5));
  ASSERT_TRUE(client_->call(ask("echo"), soon()));
  EXPECT_GT(client_->heard(), first);
  script_->drop_all(true);
  std::this_thread::sleep_for(milliseconds(20));
  const auto last = client_->heard();
  std::this_thread::sleep_for(milliseconds(60));
  EXPECT_EQ(client_->heard(), last);
}

TEST_F(RpcClientTest, ACorruptReplyIsCountedAndAskedForAgain) {
  connect();
  script_->on_receive(script_->received(), Fault::kCorrupt);
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x");
  EXPECT_EQ(client_->stats().malformed, 1U);
}

TEST_F(RpcClientTest, ASecondReplyIsDroppedAsLate) {
  connect();
  script_->on_receive(script_->received(), Fault::kDuplicate);
  EXPECT_EQ(result(client_->call(ask("echo", "a"), soon())), "a");
  EXPECT_EQ(result(client_->call(ask("echo", "b"), soon())), "b");
  EXPECT_EQ(client_->stats().late, 1U);
  EXPECT_TRUE(messages_.empty());
}

TEST_F(RpcClientTest, AReplyAfterTheDeadlineIsDroppedAndDisturbsNobody) {
  connect();
  const auto reply = client_->call(ask("slow"), in(milliseconds(30)));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(result(client_->call(ask("echo", "next"), soon())), "next");
  EXPECT_GE(client_->stats().late, 1U);
}

TEST_F(RpcClientTest, ACallEndsAtItsDeadline) {
  connect();
  const auto deadline = in(milliseconds(60));
  const auto reply = client_->call(ask("silence"), deadline);
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
  EXPECT_GE(std::chrono::steady_clock::now(), deadline);
  EXPECT_LT(std::chrono::steady_clock::now(), deadline + seconds(1));
}

TEST_F(RpcClientTest, AnAsynchronousCallEndsAtItsDeadlineToo) {
  connect();
  std::optional<ErrorCode> code;
  client_->call_async(ask("silence"), in(milliseconds(10)), [&](Result<Message> reply) {
    const std::lock_guard lock(mutex_);
    code = reply.error().code;
    changed_.notify_all();
  });
  ASSERT_TRUE(eventually([&] { return code.has_value(); }));
  EXPECT_EQ(*code, ErrorCode::kTimeout);
}

TEST_F(RpcClientTest, ManyThreadsGetTheirOwnReplies) {
  connect();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        EXPECT_EQ(result(client_->call(ask("echo", text), soon())), text);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(RpcClientTest, TooManyInFlightAreRefusedAtOnce) {
  connect();
  std::atomic<int> overloaded{0};
  for (int i = 0; i < 10; ++i) {
    client_->call_async(ask("silence"), soon(), [&](Result<Message> reply) {
      if (reply.error().code == ErrorCode::kOverloaded) ++overloaded;
    });
  }
  EXPECT_EQ(overloaded, 2);
  client_->stop();
}

TEST_F(RpcClientTest, EventsOfATaskReachTheHandlerAndTheLastIsTheReply) {
  connect();
  const auto id = client_->new_request();
  const auto reply = client_->call({id, wire::SubmitTask{"generate", "{}"}, {}}, soon());
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(std::get<wire::TaskEvent>(reply.value().body).event, "done");
  ASSERT_EQ(messages_.size(), 2U);
  EXPECT_EQ(messages_[0].request, id);
  EXPECT_EQ(std::get<wire::TaskEvent>(messages_[1].body).event, "two");
}

TEST_F(RpcClientTest, ARequestOfTheControllerIsNeverTakenForAReply) {
  connect();
  std::thread caller([&] {
    EXPECT_EQ(client_->call(ask("silence"), in(milliseconds(150))).error().code,
              ErrorCode::kTimeout);
  });
  while (controller_->requests().empty()) std::this_thread::yield();
  const auto same_id = controller_->requests()[0];  // ids of both sides may well be equal
  controller_->send({same_id, wire::AssignTask{5, "attest", "{}"}, {}});
  ASSERT_TRUE(eventually([&] { return !messages_.empty(); }));
  EXPECT_EQ(messages_[0].request, same_id);
  caller.join();
}

TEST_F(RpcClientTest, ASilentControllerIsLostAfterFourHeartbeatsAndFoundAgain) {
  connect();
  const auto before = std::chrono::steady_clock::now();
  script_->drop_all(true);
  ASSERT_TRUE(eventually([&] { return lost_ == 1; }));
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(100));
  EXPECT_FALSE(client_->connected());
  EXPECT_EQ(client_->post(ask("echo")).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(client_->call(ask("echo"), in(milliseconds(20))).error().code, ErrorCode::kUnavailable);
  script_->drop_all(false);
  ASSERT_TRUE(eventually([&] { return connections_.size() == 2; }));
  EXPECT_FALSE(connections_[1].second) << "the same incarnation was not restarted";
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x");
}

TEST_F(RpcClientTest, AQuietLinkIsKeptAliveByHeartbeats) {
  connect();
  std::this_thread::sleep_for(milliseconds(400));  // twice the time to be lost
  EXPECT_TRUE(client_->connected());
  EXPECT_EQ(client_->stats().lost, 0U);
}

TEST_F(RpcClientTest, ARestartedControllerIsGreetedAgainAndGetsWhatWasWaiting) {
  connect();
  controller_.reset();
  std::thread caller(
      [&] { EXPECT_EQ(result(client_->call(ask("echo", "kept"), soon())), "kept"); });
  std::this_thread::sleep_for(milliseconds(50));
  start_controller(200);
  caller.join();
  ASSERT_TRUE(eventually([&] { return connections_.size() == 2; }));
  EXPECT_EQ(connections_[1], (std::pair<std::uint64_t, bool>{200, true}));
  EXPECT_EQ(lost_, 1);
}

TEST_F(RpcClientTest, AControllerThatForgotThisPeerIsGreetedAgain) {
  connect();
  controller_->forget();
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x");
  EXPECT_EQ(controller_->hellos(), 2U);
  ASSERT_TRUE(eventually([&] { return connections_.size() == 2; }));
}

TEST_F(RpcClientTest, ACallMadeBeforeTheConnectionWaitsForIt) {
  controller_.reset();
  client_->start();
  std::thread caller([&] { EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x"); });
  std::this_thread::sleep_for(milliseconds(50));
  start_controller(300);
  caller.join();
}

TEST_F(RpcClientTest, ARefusedHelloIsTheReasonThatWaitersGet) {
  controller_->refuse_hello({ErrorCode::kMismatch, "protocol version: expected 2, found 1"});
  client_->start();
  const auto status = client_->wait_connected(in(milliseconds(100)));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kMismatch);
  EXPECT_GE(controller_->hellos(), 2U) << "it goes on trying";
}

TEST_F(RpcClientTest, AnAbsentControllerIsATimeout) {
  controller_.reset();
  client_->start();
  EXPECT_EQ(client_->wait_connected(in(milliseconds(30))).error().code, ErrorCode::kTimeout);
  EXPECT_EQ(client_->call(ask("echo"), in(milliseconds(10))).error().code, ErrorCode::kUnavailable);
}

TEST_F(RpcClientTest, StopCancelsWhatIsInFlightExactlyOnce) {
  connect();
  std::atomic<int> cancelled{0}, ended{0};
  for (int i = 0; i < 3; ++i) {
    client_->call_async(ask("silence"), soon(), [&](Result<Message> reply) {
      ++ended;
      if (reply.error().code == ErrorCode::kCancelled) ++cancelled;
    });
  }
  std::thread caller([&] {
    EXPECT_EQ(client_->call(ask("silence"), soon()).error().code, ErrorCode::kCancelled);
  });
  while (controller_->requests().size() < 4) std::this_thread::yield();
  client_->stop();
  client_->stop();
  caller.join();
  EXPECT_EQ(ended, 3);
  EXPECT_EQ(cancelled, 3);
  EXPECT_EQ(client_->call(ask("echo"), soon()).error().code, ErrorCode::kCancelled);
}

// What a user waits for ends where a generator would go on.
class ImpatientRpcClientTest : public RpcClientTest {
 protected:
  ImpatientRpcClientTest() : RpcClientTest(/*persists=*/false) {}
};

TEST_F(ImpatientRpcClientTest, ALostRequestIsSentAgainAllTheSame) {
  connect();
  script_->on_send(script_->sent(), Fault::kDrop);
  EXPECT_EQ(result(client_->call(ask("echo", "again"), soon())), "again");
}

TEST_F(ImpatientRpcClientTest, ARestartEndsWhatIsUnderWay) {
  connect();
  controller_.reset();
  std::thread caller([&] {
    const auto reply = client_->call(ask("echo"), soon());
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
    EXPECT_NE(reply.error().message.find("restarted"), std::string::npos);
  });
  std::this_thread::sleep_for(milliseconds(50));
  start_controller(200);
  caller.join();
  ASSERT_TRUE(eventually([&] { return connections_.size() == 2; }));
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x") << "a new request is answered";
}

TEST_F(ImpatientRpcClientTest, AControllerThatOnlyForgotItIsAskedAgain) {
  connect();
  controller_->forget();
  EXPECT_EQ(result(client_->call(ask("echo"), soon())), "x");
}

TEST_F(ImpatientRpcClientTest, WhatTheControllerSaysOfTheLinkEndsWhatIsUnderWay) {
  connect();
  std::thread caller(
      [&] { EXPECT_EQ(client_->call(ask("silence"), soon()).error().code, ErrorCode::kMismatch); });
  while (controller_->requests().empty()) std::this_thread::yield();
  controller_->send({0, wire::ErrorReply{ErrorCode::kMismatch, "protocol version"}, {}});
  caller.join();
  EXPECT_TRUE(client_->connected());
}

TEST_F(ImpatientRpcClientTest, AReplyThatDoesNotDecodeEndsWhatIsUnderWay) {
  connect();
  script_->on_receive(script_->received(), Fault::kCorrupt);
  EXPECT_FALSE(client_->call(ask("echo"), soon()));
  EXPECT_EQ(client_->stats().malformed, 1U);
}

TEST_F(ImpatientRpcClientTest, AHelloThatIsRefusedAfterALossEndsWhatIsUnderWay) {
  connect();
  controller_->refuse_hello({ErrorCode::kPermission, "not any more"});
  controller_->forget();
  EXPECT_EQ(client_->call(ask("echo"), soon()).error().code, ErrorCode::kPermission);
}

TEST(RpcClientOverIpc, ARestartedControllerIsFoundAgainAndCallsGoOn) {
  const testing_support::TemporaryFolder folder;
  ServerOptions server;
  server.endpoint = "ipc://" + folder.path() + "/socket";
  ClientOptions client;
  client.endpoint = server.endpoint;
  RpcOptions options;
  options.retry = milliseconds(40);
  options.hello_retry = milliseconds(20);
  RpcClient rpc(connect_channel(client).value(), options, {});
  rpc.start();
  for (std::uint64_t incarnation = 1; incarnation <= 4; ++incarnation) {
    FakeController controller(bind_channel(server).value(), incarnation, &answer);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(result(rpc.call(ask("echo"), soon())), "x");
  }
  EXPECT_GE(rpc.stats().lost, 3U);
}

TEST_F(RpcClientTest, StopBeforeStartIsQuiet) {
  client_->stop();
  EXPECT_FALSE(client_->connected());
  EXPECT_EQ(client_->call(ask("echo"), soon()).error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace memslot
