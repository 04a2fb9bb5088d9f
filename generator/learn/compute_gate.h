#pragma once
// Shares the backend between decoding and learning: one holder at a time, decoding first.
//
//   decode:  Hold hold(gate, Work::kDecode);   waits only for the current learning slice
//   learn:   Hold hold(gate, Work::kLearn);    waits while anybody decodes or wants to, but for at
//            least `learn_share` of the time over a second, so that learning never starves
//
// Learning takes the gate for slices of at most a few tens of milliseconds.
// Threads: any.
#include <condition_variable>
#include <mutex>

#include "shared/base/clock.h"

namespace memslot {

enum class Work { kDecode, kLearn };

class ComputeGate {
 public:
  explicit ComputeGate(const Clock& clock, double learn_share = 0.1);

  // Whether somebody waits for the gate, or decoded so recently that it is between two tokens: when
  // not, a learner need not give it back.
  bool wanted();

  class Hold {
   public:
    Hold(ComputeGate& gate, Work work);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    ComputeGate& gate_;
    Work work_;
  };

 private:
  friend class Hold;
  void acquire(Work work);
  void release(Work work);
  bool may_learn(TimePoint now);

  const Clock& clock_;
  const double learn_share_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int decoders_waiting_ = 0, learners_waiting_ = 0;
  TimePoint last_decode_{}, window_start_{}, held_since_{};
  Duration learned_{0};
};

}  // namespace memslot
