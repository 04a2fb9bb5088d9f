#include "generator/runtime/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

namespace memslot {
namespace {

using namespace std::chrono_literals;

struct SchedulerTest : testing::Test {
  SystemClock clock;
  ComputeGate gate{clock};
};

TEST_F(SchedulerTest, TakesSessionsInTurn) {
  Scheduler scheduler(gate, {4, 4});
  std::vector<int> order;
  std::vector<std::thread> sessions;
  std::atomic<int> posted{0};
  std::future<Status> held;
  scheduler.start();
  std::promise<void> go;
  held = scheduler.post([&]() -> Status {
    go.get_future().wait();
    return ok();
  });
  for (int s = 0; s < 3; ++s) {
    sessions.emplace_back([&, s] {
      while (posted != s) std::this_thread::yield();
      auto first = scheduler.post([&order, s]() -> Status {
        order.push_back(s);
        return ok();
      });
      ++posted;
      EXPECT_TRUE(first.get().has_value());
    });
  }
  while (posted != 3) std::this_thread::yield();
  go.set_value();
  for (auto& t : sessions) t.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST_F(SchedulerTest, HandsOnWhatTheWorkAnswers) {
  Scheduler scheduler(gate, {1, 1});
  scheduler.start();
  const Status failed = scheduler.run([]() -> Status { return Error{ErrorCode::kMismatch, "no"}; });
  EXPECT_EQ(failed.error().code, ErrorCode::kMismatch);
}

TEST_F(SchedulerTest, AdmitsSoManyAndLetsSoManyWait) {
  Scheduler scheduler(gate, {1, 1});
  scheduler.start();
  auto place = std::make_unique<Scheduler::Place>(scheduler.admit({}).value());
  std::atomic<bool> admitted{false};
  std::thread second([&] {
    auto waited = scheduler.admit({});
    admitted = waited.has_value();
  });
  while (scheduler.counters().waiting == 0) std::this_thread::yield();
  const auto third = scheduler.admit({});
  ASSERT_FALSE(third.has_value());
  EXPECT_EQ(third.error().code, ErrorCode::kOverloaded);
  EXPECT_FALSE(admitted);
  place.reset();
  second.join();
  EXPECT_TRUE(admitted);
}

TEST_F(SchedulerTest, AWaitingSessionCanBeCancelled) {
  Scheduler scheduler(gate, {1, 1});
  scheduler.start();
  const auto place = scheduler.admit({});
  std::stop_source stop;
  std::thread canceller([&] {
    while (scheduler.counters().waiting == 0) std::this_thread::yield();
    stop.request_stop();
  });
  const auto waited = scheduler.admit(stop.get_token());
  canceller.join();
  ASSERT_FALSE(waited.has_value());
  EXPECT_EQ(waited.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(scheduler.counters().waiting, 0);
}

TEST_F(SchedulerTest, StoppingCancelsWhatHasNotBegun) {
  Scheduler scheduler(gate, {1, 1});
  scheduler.start();
  std::promise<void> go;
  auto running = scheduler.post([&]() -> Status {
    go.get_future().wait();
    return ok();
  });
  auto waiting = scheduler.post([]() -> Status { return ok(); });
  while (scheduler.counters().pieces == 0) std::this_thread::yield();
  std::thread stopper([&] { scheduler.stop(); });
  std::this_thread::sleep_for(20ms);
  go.set_value();
  stopper.join();
  EXPECT_TRUE(running.get().has_value());
  EXPECT_EQ(waiting.get().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(scheduler.run([]() -> Status { return ok(); }).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(scheduler.admit({}).error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace memslot
