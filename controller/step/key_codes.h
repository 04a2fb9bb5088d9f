#pragma once
// Keys in four bits a dimension, to look through very many of them: a sixteenth of the memory
// traffic of a search decides which few are compared exactly.
//
//   code_j = round(7 x_j / s),  s = max_j |x_j|;  of the query 127 instead of 7;
//   x . q ~ s s_q / (7 * 127) * sum_j code_j code_q_j
//
// The error of a product of unit vectors in 96 dimensions has a standard deviation of about 1e-2:
// ask for a few times as many as are wanted. The sums are of integers: the same with every
// instruction set.
//
// Threads: one at a time; scan() from any thread while nothing is added.
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "shared/base/huge_pages.h"

namespace memslot {

class KeyCodes {
 public:
  // What multiplies: all give the same numbers.
  enum class Kernel { kPortable, kAvx2, kVnni };
  static std::vector<Kernel> kernels();  // of this machine, the fastest last

  explicit KeyCodes(std::size_t dim, Kernel kernel = kernels().back());

  void add(std::span<const float> row);  // (dim); rows are numbered from 0
  void drop(std::size_t row);            // it is no longer found
  void clear();
  std::size_t rows() const { return rows_; }

  // The `count` rows that look most like `query` (dim) as (approximate product, row), by row; of
  // equal ones the first.
  std::vector<std::pair<float, std::uint32_t>> scan(std::span<const float> query,
                                                    std::size_t count) const;

 private:
  std::size_t width() const;  // codes of a row: dim, rounded up to four

  std::size_t dim_, rows_ = 0;
  Kernel kernel_;
  // Code + 8, as (groups of 32 rows, width / 4, 16, 4): one instruction takes four dimensions of
  // sixteen rows, and no sum goes across a register. A byte's low bits are of a row of the group's
  // first half, its high bits of the one 16 behind it.
  std::vector<std::uint8_t, HugePages<std::uint8_t>> codes_;
  std::vector<float> scales_;  // (groups, 32): s / 7; not a number where dropped or empty
};

}  // namespace memslot
