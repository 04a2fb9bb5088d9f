#pragma once
// Ends a generation at a stop string, also one that is spread over several tokens.
//
// Text that could still become a stop string is held back; the stop string itself and what follows
// are never given out. The match that ends first wins, of those the one that starts first: so the
// outcome does not depend on how the text was cut into pieces.
//
// Owner:   keeps copies of the strings.
// Threads: one thread.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

class StopMatcher {
 public:
  static constexpr std::size_t kMaxStops = 16;
  static constexpr std::size_t kMaxStopBytes = 1024;
  // kInvalidArgument: an empty string, more than kMaxStops, one longer than kMaxStopBytes.
  static Result<StopMatcher> make(std::vector<std::string> stops);

  // The text that may be given out now. After stopped() it is always empty.
  std::string push(std::string_view text);
  bool stopped() const { return match_ >= 0; }
  // Index of the stop string that matched, -1 if none.
  int match() const { return match_; }
  // The text still held back when the generation ends for another reason; empty after a stop.
  std::string finish();

 private:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  std::vector<std::string> stops_;
  std::string held_;
  int match_ = -1;
};

}  // namespace memslot
