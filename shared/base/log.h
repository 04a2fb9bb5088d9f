#pragma once
// Process log on standard error, one line an event: time, level, component, message. The decisions
// themselves go to the trace, not here.
//
// Threads: any.
#include <spdlog/fmt/fmt.h>

#include <string_view>

#include "shared/base/error.h"

namespace memslot::log {

// level: trace, debug, info, warn, error, off. kInvalidArgument otherwise.
Status start(std::string_view component, std::string_view level);

void write(int level, std::string_view message);  // spdlog's numeric level

template <class... Args>
void debug(fmt::format_string<Args...> f, Args&&... args) {
  write(1, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> f, Args&&... args) {
  write(2, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> f, Args&&... args) {
  write(3, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> f, Args&&... args) {
  write(4, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace memslot::log
