#include "rl/report/plots.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace memslot {
namespace {

constexpr double kWidth = 460, kHeight = 260;
constexpr double kLeft = 58, kRight = 14, kTop = 12, kBottom = 42;
constexpr double kBarHeight = 26, kBarLeft = 110, kBarRight = 74;
constexpr int kColours = 6;

std::string coordinate(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", v);
  return text;
}

std::string attribute(const char* name, double v) {
  return std::string(" ") + name + "=\"" + coordinate(v) + "\"";
}

std::string line(double x1, double y1, double x2, double y2, const char* css) {
  return "<line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) +
         attribute("y2", y2) + " class=\"" + css + "\"/>";
}

std::string label(double x, double y, const char* css, const std::string& text) {
  return "<text" + attribute("x", x) + attribute("y", y) + " class=\"" + css + "\">" +
         escaped(text) + "</text>";
}

// A linear scale from values to pixels.
struct Scale {
  double low, high, from, to;
  double operator()(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void take(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  // With something to divide by, and `margin` of it on both sides.
  Range widened(double margin) const {
    if (!(low <= high)) return {0, 1};
    const double span = high > low ? high - low : std::max(1.0, std::abs(high));
    return {low - margin * span, high + margin * span};
  }
};

std::string frame(double width, double height, const std::string& title, const std::string& body) {
  return "<figure><figcaption>" + escaped(title) + "</figcaption><svg viewBox=\"0 0 " +
         coordinate(width) + " " + coordinate(height) + "\" role=\"img\" aria-label=\"" +
         escaped(title) + "\">" + body + "</svg>";
}

std::string path_of(const Series& series, const Scale& x, const Scale& y, int colour) {
  std::string points;
  for (const auto& [px, py] : series.points) {
    if (std::isfinite(px) && std::isfinite(py))
      points += coordinate(x(px)) + "," + coordinate(y(py)) + " ";
  }
  return "<polyline class=\"curve c" + std::to_string(colour % kColours) + "\" points=\"" + points +
         "\"/>";
}

std::string legend(const LinePlot& plot) {
  if (plot.lines.size() + plot.references.size() < 2) return "";
  std::string out = "<div class=\"legend\">";
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    out += "<span><i class=\"k" + std::to_string(i % kColours) + "\"></i>" +
           escaped(plot.lines[i].name) + "</span>";
  }
  for (const auto& [name, at] : plot.references) {
    out += "<span><i class=\"dash\"></i>" + escaped(name) + " " + short_number(at) + "</span>";
  }
  return out + "</div>";
}

}  // namespace

std::vector<double> ticks(double low, double high, int most) {
  const double span = high - low;
  if (!(span > 0) || most < 2) return {low};
  double step = std::pow(10.0, std::floor(std::log10(span / most)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if (span / step <= most) break;
    step *= factor;  // 1, 2, 5, 10
  }
  std::vector<double> out;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) {
    out.push_back(i * step);
  }
  return out;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  if (std::abs(value) >= 1000 && std::abs(value) < 1e9) {
    std::snprintf(text, sizeof text, "%.0f", value);
  }
  return std::abs(value) < 1e-12 ? "0" : text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string svg(const LinePlot& plot) {
  Range xs, ys;
  for (const Series& series : plot.lines) {
    for (const auto& [px, py] : series.points) {
      xs.take(px);
      ys.take(py);
    }
  }
  for (const auto& [name, at] : plot.references) ys.take(at);
  xs = xs.widened(0);
  ys = ys.widened(0.06);
  if (!(xs.high > xs.low)) xs.high = xs.low + 1;
  const Scale x{xs.low, xs.high, kLeft, kWidth - kRight};
  const Scale y{ys.low, ys.high, kHeight - kBottom, kTop};
  std::string body;
  for (const double t : ticks(ys.low, ys.high, 6)) {
    body += line(kLeft, y(t), kWidth - kRight, y(t), "grid");
    body += label(kLeft - 6, y(t) + 4, "tick end", short_number(t));
  }
  for (const double t : ticks(xs.low, xs.high, 6)) {
    body += line(x(t), kHeight - kBottom, x(t), kHeight - kBottom + 4, "axis");
    body += label(x(t), kHeight - kBottom + 17, "tick middle", short_number(t));
  }
  body += line(kLeft, kHeight - kBottom, kWidth - kRight, kHeight - kBottom, "axis");
  for (const auto& [name, at] : plot.references) {
    body += line(kLeft, y(at), kWidth - kRight, y(at), "reference");
  }
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    body += path_of(plot.lines[i], x, y, static_cast<int>(i));
  }
  body += label((kLeft + kWidth - kRight) / 2, kHeight - 6, "tick middle", plot.x_label);
  const std::string title =
      plot.y_label.empty() ? plot.title : plot.title + " (" + plot.y_label + ")";
  return frame(kWidth, kHeight, title, body) + legend(plot) + "</figure>";
}

std::string svg(const BarPlot& plot) {
  Range values;
  values.take(0);
  for (const Bar& bar : plot.bars) {
    values.take(bar.value);
    if (bar.interval) {
      values.take(bar.interval->first);
      values.take(bar.interval->second);
    }
  }
  values = values.widened(0);
  const double height = kTop + kBarHeight * static_cast<double>(plot.bars.size()) + 30;
  const double bottom = height - 26;
  const Scale x{values.low, values.high, kBarLeft, kWidth - kBarRight};
  std::string body;
  for (const double t : ticks(values.low, values.high, 6)) {
    body += line(x(t), kTop, x(t), bottom, "grid");
    body += label(x(t), bottom + 16, "tick middle", short_number(t));
  }
  for (std::size_t i = 0; i < plot.bars.size(); ++i) {
    const Bar& bar = plot.bars[i];
    const double top = kTop + kBarHeight * static_cast<double>(i);
    const double middle = top + kBarHeight / 2;
    body += label(kBarLeft - 8, middle + 4, "name end", bar.name);
    if (!std::isfinite(bar.value)) continue;
    const double left = std::min(x(0), x(bar.value)), right = std::max(x(0), x(bar.value));
    body += "<rect" + attribute("x", left) + attribute("y", top + 5) +
            attribute("width", right - left) + attribute("height", kBarHeight - 10) +
            (bar.marked ? " class=\"bar marked\"/>" : " class=\"bar\"/>");
    double end = std::max(right, x(0));
    if (bar.interval) {
      body += line(x(bar.interval->first), middle, x(bar.interval->second), middle, "whisker");
      for (const double v : {bar.interval->first, bar.interval->second}) {
        body += line(x(v), middle - 4, x(v), middle + 4, "whisker");
        end = std::max(end, x(v));
      }
    }
    body += label(end + 6, middle + 4, "value", short_number(bar.value));
  }
  body += line(x(0), kTop, x(0), bottom, "axis");
  const std::string title = plot.unit.empty() ? plot.title : plot.title + " (" + plot.unit + ")";
  return frame(kWidth, height, title, body) + "</figure>";
}

}  // namespace memslot
