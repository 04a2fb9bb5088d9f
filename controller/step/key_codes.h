#pragma once
// Keys in a byte a dimension, to look through very many of them: an eighth of the memory traffic of
// a search decides which few are compared exactly.
//
//   code_j = round(127 x_j / s),  s = max_j |x_j|;  x . q ~ s s_q / 127^2 * sum_j code_j code_q_j
//
// The error of a product of unit vectors in 96 dimensions is about 1e-3: ask for a few times as
// many as are wanted. The sums are of integers: the same with every instruction set.
//
// Threads: one at a time; scan() from any thread while nothing is added.
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace memslot {

class KeyCodes {
 public:
  explicit KeyCodes(std::size_t dim) : dim_(dim) {}

  void add(std::span<const float> row);  // (dim); rows are numbered from 0
  void drop(std::size_t row);            // it is no longer found
  void clear();
  std::size_t rows() const { return scales_.size(); }

  // The `count` rows that look most like `query` (dim), best first, as (approximate product, row);
  // equal ones by number.
  std::vector<std::pair<float, std::uint32_t>> scan(std::span<const float> query,
                                                    std::size_t count) const;

 private:
  std::size_t dim_;
  std::vector<std::uint8_t> codes_;  // (rows, dim): code + 128
  std::vector<float> scales_;        // (rows): s / 127; not a number where dropped
};

}  // namespace memslot
