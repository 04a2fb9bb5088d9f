#pragma once
// Plots as SVG text, to stand in a page of page.h: colours and type are its style's, so that they
// follow a light or dark scheme. Nothing is fetched.
//
// A number that is not finite is left out. Names are escaped.
//
// Threads: pure functions.
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace memslot {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending
};

struct LinePlot {
  std::string title, x_label, y_label;
  std::vector<Series> lines;
  std::vector<std::pair<std::string, double>> references;  // dashed, at a height
};
std::string svg(const LinePlot& plot);

struct Bar {
  std::string name;
  double value = 0;
  std::optional<std::pair<double, double>> interval;  // drawn as a whisker
  bool marked = false;                                // the one that the plot is about
};

// Horizontal bars from zero, each with its value.
struct BarPlot {
  std::string title, unit;
  std::vector<Bar> bars;
};
std::string svg(const BarPlot& plot);

// At most `most` round numbers within [low, high], ascending. REQUIRES: low <= high.
std::vector<double> ticks(double low, double high, int most);

// As a reader wants it: three significant digits, no exponent in everyday ranges.
std::string short_number(double value);

std::string escaped(const std::string& text);

}  // namespace memslot
