#pragma once
// Limits of options. CLI::Range compares, and "not a number" is neither below nor above anything.
//
// Threads: pure functions.
#include <CLI/CLI.hpp>
#include <sstream>
#include <string>

namespace memslot::cli {

// A number from `low` to `high`. What fits no double, infinities among it, is outside.
inline CLI::Validator number_from(double low, double high) {
  const auto written = [](double v) {
    std::ostringstream out;
    out << v;
    return out.str();
  };
  const std::string range = written(low) + " to " + written(high);
  return {[=](std::string& text) {
            double value = 0;
            const bool read = CLI::detail::lexical_cast(text, value);
            if (read && value >= low && value <= high) return std::string();
            return "expected a number from " + range + ", found " + text;
          },
          "FROM " + range};
}

}  // namespace memslot::cli
