#include "shared/http/http_metrics.h"

#include <algorithm>  // clamp

namespace memslot::http {

void Metrics::answered(unsigned status, Duration time) {
  answered(status);
  times_.observe(time);
}

void Metrics::answered(unsigned status) {
  answers_[std::clamp<std::size_t>(status / 100, 1, kClasses) - 1].add();
}

std::string Metrics::text() const {
  metrics::Page page;
  const std::string answers = process_ + "_http_answers_total";
  for (const std::size_t first : {2, 4, 5}) {  // no others are given
    page.counter(answers, "Answers over HTTP, by class of status.", answers_[first - 1].value(),
                 {{"status", std::to_string(first) + "xx"}});
  }
  page.histogram(process_ + "_http_answer_seconds",
                 "From a whole request over HTTP to the beginning of its answer; not those refused "
                 "unread.",
                 times_);
  page.gauge(process_ + "_http_connections", "Open connections over HTTP.", connections_.load());
  const std::string dropped = process_ + "_http_dropped_total";
  constexpr auto kDroppedHelp =
      "Connections over HTTP that were closed: over the limit of connections, too slow with a "
      "request, or gone or not reading before the answer was whole.";
  page.counter(dropped, kDroppedHelp, refused_.value(), {{"reason", "too_many"}});
  page.counter(dropped, kDroppedHelp, slow_.value(), {{"reason", "slow_request"}});
  page.counter(dropped, kDroppedHelp, abandoned_.value(), {{"reason", "abandoned"}});
  return page.text();
}

}  // namespace memslot::http
