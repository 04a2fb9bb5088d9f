#pragma once
// Cosines and sines of rotary positions, computed once per (theta, d) and extended on demand.
//
// angle(position, i) = position * theta^(-2i/d), i < d/2; the frequency and the angle are rounded
// to f32 as the published implementations do, the cosine and sine are taken in double. Su et al.
// 2021, arXiv:2104.09864. Threads: one at a time.
#include <cstdint>
#include <vector>

namespace memslot::cpu {

class RopeTable {
 public:
  // Makes positions [0, positions) ready. REQUIRES: theta > 0, head_dim even.
  void prepare(float theta, int head_dim, std::int64_t positions);
  // d/2 cosines, then d/2 sines. REQUIRES: position < the prepared count.
  const float* row(std::int64_t position) const { return values_.data() + position * head_dim_; }

 private:
  float theta_ = 0;
  int head_dim_ = 0;
  std::vector<float> values_;
};

}  // namespace memslot::cpu
