#include "rl/report/plots.h"

#include <gtest/gtest.h>

#include <limits>

#include "rl/report/page.h"

namespace memslot {
namespace {

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

TEST(Plots, TicksAreRoundAndWithinTheRange) {
  EXPECT_EQ(ticks(0, 10, 6), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(ticks(-1, 1, 5), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(ticks(3, 3, 5), std::vector<double>{3});
  for (const double high : {1e-6, 0.03, 7.0, 480.0, 2.5e7}) {
    const auto found = ticks(0, high, 6);
    EXPECT_GE(found.size(), 3u) << high;
    EXPECT_LE(found.size(), 7u) << high;
    EXPECT_LE(found.back(), high * (1 + 1e-9));
  }
}

TEST(Plots, NumbersReadAsPeopleWriteThem) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(0.12345), "0.123");
  EXPECT_EQ(short_number(12345.6), "12346");
  EXPECT_EQ(short_number(-0.5), "-0.5");
  EXPECT_EQ(short_number(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(Plots, NamesAreEscapedAndEveryLineIsThere) {
  LinePlot plot{"a < b & \"c\"", "update", "nats", {{"one", {{0, 1}, {1, 2}}}, {"two", {}}}, {}};
  plot.references = {{"best", 3.0}};
  const std::string text = svg(plot);
  EXPECT_EQ(count(text, "<polyline"), 2u);
  EXPECT_EQ(count(text, "class=\"reference\""), 1u);
  EXPECT_NE(text.find("a &lt; b &amp; &quot;c&quot;"), std::string::npos);
  EXPECT_EQ(count(text, "<svg"), count(text, "</svg>"));
}

TEST(Plots, WhatIsNoNumberIsLeftOut) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string lines = svg(LinePlot{"t", "x", "y", {{"a", {{0, nan}, {1, 2}}}}, {}});
  const std::string bars =
      svg(BarPlot{"t", "u", {{"a", nan, std::nullopt, false}, {"b", 1, {{0.5, 2}}, true}}});
  for (const std::string& text : {lines, bars}) {
    EXPECT_EQ(text.find("nan"), std::string::npos) << text;
    EXPECT_EQ(text.find("inf"), std::string::npos) << text;
  }
  EXPECT_EQ(count(bars, "<rect"), 1u);
  EXPECT_EQ(count(bars, "class=\"whisker\""), 3u);
}

TEST(Plots, NothingToDrawIsStillAPlot) {
  EXPECT_NE(svg(LinePlot{"t", "x", "y", {}, {}}).find("</figure>"), std::string::npos);
  EXPECT_NE(svg(BarPlot{"t", "u", {}}).find("</figure>"), std::string::npos);
}

TEST(Page, IsOneDocumentForLightAndDark) {
  const std::string page = html_page("x < y", html(Table{{"a", "b"}, {{"<1>", "2"}}}));
  EXPECT_NE(page.find("<title>x &lt; y</title>"), std::string::npos);
  EXPECT_NE(page.find("prefers-color-scheme:dark"), std::string::npos);
  EXPECT_NE(page.find("&lt;1&gt;"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);
}

}  // namespace
}  // namespace memslot
