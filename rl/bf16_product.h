#pragma once
// Products of one query with very many bf16 rows: the query is laid out once as rows are read.
//
// Threads: immutable; share freely.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace memslot {

class Bf16Product {
 public:
  explicit Bf16Product(std::span<const float> query);
  std::size_t size() const { return query_.size(); }
  // Sum of row[i] * query[i], row of size() numbers. The order of the sum is the same with every
  // instruction set.
  float operator()(const std::uint16_t* row) const;

 private:
  std::size_t paired_;  // numbers in whole blocks
  std::vector<float>
      query_;  // of each block the even numbers, then the odd ones; the rest as it is
};

}  // namespace memslot
