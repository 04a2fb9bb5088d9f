#include "generator/learn/compute_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "generator/learn/gate_slices.h"

namespace memslot {
namespace {

using namespace std::chrono_literals;
using Hold = ComputeGate::Hold;

TEST(ComputeGates, OnlyOneHoldsIt) {
  SystemClock clock;
  ComputeGate gate(clock);
  std::atomic<int> inside = 0, worst = 0;
  const auto work = [&](Work kind) {
    for (int i = 0; i < 40; ++i) {
      const Hold hold(gate, kind);
      worst = std::max(worst.load(), ++inside);
      std::this_thread::sleep_for(100us);
      --inside;
    }
  };
  std::thread a(work, Work::kDecode), b(work, Work::kDecode), c(work, Work::kLearn);
  a.join(), b.join(), c.join();
  EXPECT_EQ(worst, 1);
}

TEST(ComputeGates, LearningWaitsWhileDecodingGoesOn) {
  ManualClock clock;
  clock.advance(5s);
  ComputeGate gate(clock, /*learn_share=*/0.0);
  std::atomic<bool> learned = false;
  { const Hold decode(gate, Work::kDecode); }
  std::thread learner([&] {
    const Hold hold(gate, Work::kLearn);
    learned = true;
  });
  std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(learned) << "a decoder was there a moment ago";
  clock.advance(100ms);  // it has gone
  learner.join();
  EXPECT_TRUE(learned);
}

TEST(ComputeGates, LearningGetsItsShareAmidUnbrokenDecoding) {
  SystemClock clock;
  ComputeGate gate(clock, /*learn_share=*/0.2);
  std::atomic<bool> stop = false;
  std::atomic<std::int64_t> learned_us = 0;
  std::thread decoder([&] {
    while (!stop) {
      const Hold hold(gate, Work::kDecode);
      std::this_thread::sleep_for(1ms);
    }
  });
  std::thread learner([&] {
    while (!stop) {
      const Hold hold(gate, Work::kLearn);
      const auto start = std::chrono::steady_clock::now();
      std::this_thread::sleep_for(5ms);
      learned_us += std::chrono::duration_cast<std::chrono::microseconds>(
                        std::chrono::steady_clock::now() - start)
                        .count();
    }
  });
  std::this_thread::sleep_for(600ms);
  stop = true;
  decoder.join(), learner.join();
  EXPECT_GT(learned_us, 30'000) << "it must not starve";
  EXPECT_LT(learned_us, 300'000) << "nor take more than its share by far";
}

TEST(ComputeGates, AnIdleGateLetsLearningRunFreely) {
  SystemClock clock;
  ComputeGate gate(clock, /*learn_share=*/0.0);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) const Hold hold(gate, Work::kLearn);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 500ms);
}

TEST(ComputeGates, IsWantedByWhoWaitsAndByWhoDecodedAMomentAgo) {
  ManualClock clock;
  clock.advance(5s);
  ComputeGate gate(clock);
  EXPECT_FALSE(gate.wanted());
  { const Hold decode(gate, Work::kDecode); }
  EXPECT_TRUE(gate.wanted());
  clock.advance(100ms);
  EXPECT_FALSE(gate.wanted());
  for (const Work work : {Work::kDecode, Work::kLearn}) {
    auto held = std::make_optional<Hold>(gate, Work::kLearn);
    std::thread other([&] { const Hold hold(gate, work); });
    while (!gate.wanted()) std::this_thread::yield();
    held.reset();
    other.join();
    clock.advance(100ms);
    EXPECT_FALSE(gate.wanted());
  }
}

TEST(ComputeGates, ASliceEndsForADecoderThatWaits) {
  SystemClock clock;
  ComputeGate gate(clock);
  GateSlices slices(gate);
  std::atomic<bool> decoded = false;
  std::thread decoder([&] {
    const Hold hold(gate, Work::kDecode);
    decoded = true;
  });
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (!decoded && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(1ms);
    slices.breathe();
  }
  EXPECT_TRUE(decoded);
  slices.outside([&] { decoder.join(); });  // it ends also where the slice did not
}

}  // namespace
}  // namespace memslot
