#include "generator/learn/compute_gate.h"

#include <chrono>

#include "shared/base/error.h"

namespace memslot {
namespace {

using namespace std::chrono_literals;

// A decoder that released the gate this recently is between two tokens, not finished.
constexpr Duration kBetweenTokens = 20ms;
constexpr Duration kWindow = 1s;
// How often a waiting learner looks at the clock; it need not be a clock that wakes anybody.
constexpr auto kPoll = 1ms;

}  // namespace

ComputeGate::ComputeGate(const Clock& clock, double learn_share)
    : clock_(clock),
      learn_share_(learn_share),
      last_decode_(clock.now() - kWindow),
      window_start_(clock.now()) {
  MEMSLOT_CHECK(learn_share >= 0 && learn_share <= 1);
}

ComputeGate::Hold::Hold(ComputeGate& gate, Work work) : gate_(gate), work_(work) {
  gate_.acquire(work);
}
ComputeGate::Hold::~Hold() { gate_.release(work_); }

void ComputeGate::acquire(Work work) {
  std::unique_lock lock(mutex_);
  if (work == Work::kDecode) {
    ++decoders_waiting_;
    changed_.wait(lock, [this] { return !held_; });
    --decoders_waiting_;
  } else {
    ++learners_waiting_;
    while (held_ || !may_learn(clock_.now())) changed_.wait_for(lock, kPoll);
    --learners_waiting_;
  }
  held_ = true;
  held_since_ = clock_.now();
}

bool ComputeGate::wanted() {
  const std::lock_guard lock(mutex_);
  return decoders_waiting_ > 0 || learners_waiting_ > 0 ||
         clock_.now() - last_decode_ < kBetweenTokens;
}

// REQUIRES: mutex_ held.
bool ComputeGate::may_learn(TimePoint now) {
  if (now - window_start_ >= kWindow) {
    window_start_ = now;
    learned_ = Duration{0};
  }
  if (decoders_waiting_ == 0 && now - last_decode_ >= kBetweenTokens) return true;
  // Decoding goes on: only the share that is guaranteed, spread over the window.
  const auto due = std::chrono::duration_cast<Duration>((now - window_start_) * learn_share_);
  return learned_ < due;
}

void ComputeGate::release(Work work) {
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = clock_.now();
    held_ = false;
    if (work == Work::kDecode) {
      last_decode_ = now;
    } else {
      learned_ += now - held_since_;
    }
  }
  changed_.notify_all();
}

}  // namespace memslot
