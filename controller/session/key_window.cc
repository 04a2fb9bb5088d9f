#include "controller/session/key_window.h"

#include <algorithm>

namespace memslot {

void KeyWindow::add(std::span<const float> mean, std::uint32_t count) {
  if (count == 0 || mean.empty()) return;
  if (!summaries_.empty() && summaries_.front().mean.size() != mean.size()) return;
  summaries_.push_back({{mean.begin(), mean.end()}, count});
  // Forget what lies wholly before the window.
  std::uint64_t newer = 0;
  for (const Summary& summary : summaries_) newer += summary.count;
  while (newer - summaries_.front().count >= tokens_ && summaries_.size() > 1) {
    newer -= summaries_.front().count;
    summaries_.pop_front();
  }
}

std::vector<float> KeyWindow::mean(std::uint32_t tokens) const {
  if (summaries_.empty()) return {};
  std::vector<float> out(summaries_.front().mean.size(), 0.0f);
  std::uint32_t left = tokens;
  float total = 0;
  for (auto it = summaries_.rbegin(); it != summaries_.rend() && left > 0; ++it) {
    const std::uint32_t taken = std::min(left, it->count);
    const float weight = static_cast<float>(taken);
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight * it->mean[d];
    total += weight;
    left -= taken;
  }
  for (float& x : out) x /= total;
  return out;
}

}  // namespace memslot
