#include "generator/cpu/rope_table.h"

#include <cmath>

#include "shared/base/error.h"

namespace memslot::cpu {

void RopeTable::prepare(float theta, int head_dim, std::int64_t positions) {
  MEMSLOT_CHECK(theta > 0 && head_dim > 0 && head_dim % 2 == 0);
  if (theta != theta_ || head_dim != head_dim_) {
    values_.clear();
    theta_ = theta;
    head_dim_ = head_dim;
  }
  const auto width = static_cast<std::size_t>(head_dim), half = width / 2;
  const std::size_t have = values_.size() / width;
  if (static_cast<std::size_t>(positions) <= have) return;
  constexpr std::size_t kStep = 512;  // grows by whole chunks of a prompt
  const std::size_t want = (static_cast<std::size_t>(positions) + kStep - 1) / kStep * kStep;
  values_.resize(want * width);
  for (std::size_t i = 0; i < half; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(width);
    const auto frequency = static_cast<float>(1.0 / std::pow(static_cast<double>(theta), exponent));
    for (std::size_t p = have; p < want; ++p) {
      const auto angle = static_cast<double>(static_cast<float>(p) * frequency);
      values_[p * width + i] = static_cast<float>(std::cos(angle));
      values_[p * width + half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace memslot::cpu
