#pragma once
// The mean slot input over the last tokens of a session: the query of nearest-key search.
//
//   mean = sum_i c_i h_i / sum_i c_i, newest summary first, until the window's tokens are used up
//
// One step of 16 tokens says little: keys are means over 32 words. The mean depends on nothing but
// the summaries that it takes in, so a window that was filled anew has the same one in every bit.
//
// Threads: one at a time.
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace memslot {

class KeyWindow {
 public:
  explicit KeyWindow(std::uint32_t tokens = 32) : tokens_(tokens) {}

  // A mean (D) over `count` tokens. count 0, or another D than before, is ignored.
  void add(std::span<const float> mean, std::uint32_t count);
  void clear() { summaries_.clear(); }
  std::vector<float> mean() const { return mean(tokens_); }  // (D); empty before the first summary
  std::vector<float> mean(std::uint32_t tokens) const;       // of the last ones of the window

 private:
  struct Summary {
    std::vector<float> mean;
    std::uint32_t count = 0;
  };
  std::uint32_t tokens_;
  std::deque<Summary> summaries_;  // oldest first; no more than fill the window
};

}  // namespace memslot
