#include "generator/runtime/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace memslot {
namespace {

// Length of the longest end of `text` that begins `stop` without being all of it.
std::size_t partial_match(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

Result<StopMatcher> StopMatcher::make(std::vector<std::string> stops) {
  if (stops.size() > kMaxStops)
    return invalid("stop strings", "at most " + std::to_string(kMaxStops), stops.size());
  for (const auto& stop : stops) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return invalid("bytes of a stop string", "1 to " + std::to_string(kMaxStopBytes),
                     stop.size());
    }
  }
  return StopMatcher(std::move(stops));
}

std::string StopMatcher::push(std::string_view text) {
  if (stopped()) return {};
  held_ += text;
  std::size_t first = std::string::npos, first_end = std::string::npos, keep = 0;
  for (std::size_t i = 0; i < stops_.size(); ++i) {
    const auto at = held_.find(stops_[i]);
    if (at != std::string::npos &&
        std::pair(at + stops_[i].size(), at) < std::pair(first_end, first)) {
      first = at;
      first_end = at + stops_[i].size();
      match_ = static_cast<int>(i);
    }
    keep = std::max(keep, partial_match(held_, stops_[i]));
  }
  if (stopped()) {
    std::string out = held_.substr(0, first);
    held_.clear();
    return out;
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace memslot
