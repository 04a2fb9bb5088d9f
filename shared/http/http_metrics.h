#pragma once
// What a server counts, for the page of figures of its process (docs/metrics.md).
//
// Threads: any.
#include <array>
#include <atomic>
#include <string>
#include <utility>

#include "shared/base/metrics.h"

namespace memslot::http {

class Metrics {
 public:
  // `process`: the beginning of the names, "memslot_controller".
  explicit Metrics(std::string process) : process_(std::move(process)) {}

  // An answer begins `time` after its request was whole.
  void answered(unsigned status, Duration time);
  // A request was refused before anyone worked on it: in no time worth counting.
  void answered(unsigned status);
  void opened() { ++connections_; }
  void closed() { --connections_; }
  void refused() { refused_.add(); }
  void abandoned() { abandoned_.add(); }
  void slow() { slow_.add(); }

  std::string text() const;

 private:
  static constexpr std::size_t kClasses = 5;  // 1xx to 5xx

  const std::string process_;
  std::array<metrics::Counter, kClasses> answers_;
  metrics::Histogram times_{metrics::kLongTimes};
  metrics::Counter refused_, abandoned_, slow_;
  std::atomic<int> connections_ = 0;
};

}  // namespace memslot::http
