#include "shared/base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>
#include <vector>

namespace memslot::metrics {
namespace {

using testing::HasSubstr;

constexpr std::array kBounds = {0.001, 0.01, 0.1};

TEST(Histogram, AValueOnABoundIsBelowIt) {
  Histogram histogram(kBounds);
  for (const double value : {0.0, 0.001, 0.0011, 0.1, 0.2}) histogram.observe(value);
  const Histogram::Reading read = histogram.read();
  EXPECT_EQ(read.counts[0], 2u);
  EXPECT_EQ(read.counts[1], 1u);
  EXPECT_EQ(read.counts[2], 1u);
  EXPECT_EQ(read.counts[3], 1u);
  EXPECT_DOUBLE_EQ(read.sum, 0.3021);
}

TEST(Histogram, SeveralAtOnceCountAsSeveral) {
  Histogram histogram(kBounds);
  histogram.observe(0.05, 16);
  histogram.observe_us(500, 2);
  EXPECT_EQ(histogram.read().counts[2], 16u);
  EXPECT_EQ(histogram.read().counts[0], 2u);
  EXPECT_DOUBLE_EQ(histogram.read().sum, 0.801);
}

TEST(Histogram, WhatIsNoDurationIsLeftOut) {
  Histogram histogram(kBounds);
  for (const double value :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    histogram.observe(value);
  }
  EXPECT_EQ(histogram.read().counts, decltype(Histogram::Reading::counts){});
  EXPECT_EQ(histogram.read().sum, 0);
}

TEST(Histogram, LosesNothingWhereManyCountAtOnce) {
  constexpr int kThreads = 4, kEach = 20000;
  Histogram histogram(kBounds);
  Counter counter;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        histogram.observe(0.25);  // a power of two: its sums are exact
        counter.add();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.read().counts[3], std::uint64_t{kThreads} * kEach);
  EXPECT_EQ(histogram.read().sum, 0.25 * kThreads * kEach);
  EXPECT_EQ(counter.value(), std::uint64_t{kThreads} * kEach);
}

TEST(Page, IsInPrometheusTextFormat) {
  Page page;
  page.counter("memslot_test_swaps_total", "Swaps.", 3u, {{"source", "resident"}});
  page.counter("memslot_test_swaps_total", "Swaps.", 1u, {{"source", "loaded"}});
  page.gauge("memslot_test_rate", "A rate.", 0.25);
  EXPECT_EQ(page.text(),
            "# HELP memslot_test_swaps_total Swaps.\n"
            "# TYPE memslot_test_swaps_total counter\n"
            "memslot_test_swaps_total{source=\"resident\"} 3\n"
            "memslot_test_swaps_total{source=\"loaded\"} 1\n"
            "# HELP memslot_test_rate A rate.\n"
            "# TYPE memslot_test_rate gauge\n"
            "memslot_test_rate 0.25\n");
}

TEST(Page, AHistogramsBucketsAddUp) {
  Histogram histogram(kBounds);
  histogram.observe(0.0005);
  histogram.observe(0.5, 2);
  Page page;
  page.histogram("memslot_test_seconds", "Times.", histogram);
  EXPECT_EQ(page.text(),
            "# HELP memslot_test_seconds Times.\n"
            "# TYPE memslot_test_seconds histogram\n"
            "memslot_test_seconds_count 3\n"
            "memslot_test_seconds_sum 1.0005\n"
            "memslot_test_seconds_bucket{le=\"0.001\"} 1\n"
            "memslot_test_seconds_bucket{le=\"0.01\"} 1\n"
            "memslot_test_seconds_bucket{le=\"0.1\"} 1\n"
            "memslot_test_seconds_bucket{le=\"+Inf\"} 3\n");
}

TEST(Page, ALargeCounterIsExact) {
  Page page;
  page.counter("memslot_test_total", "Many.", std::uint64_t{9007199254740991});
  EXPECT_THAT(page.text(), HasSubstr("memslot_test_total 9007199254740991\n"));
}

TEST(Page, TellsOfTheProcess) {
  Page page;
  page.process("memslot_test");
  EXPECT_THAT(page.text(), HasSubstr("memslot_test_build_info{build=\""));
  EXPECT_THAT(page.text(), HasSubstr("\nprocess_resident_memory_bytes "));
  EXPECT_GT(resident_set_bytes(), std::size_t{1} << 20);
}

TEST(PageDeathTest, RefusesWhatPrometheusWould) {
  Page page;
  page.gauge("memslot_test_a", "A.", 1);
  page.gauge("memslot_test_b", "B.", 1);
  EXPECT_DEATH(page.gauge("memslot_test_a", "A.", 2), "none_of");
  EXPECT_DEATH(page.gauge("memslot test", "A name with a space.", 2), "CheckMetricName");
  EXPECT_DEATH(page.counter("memslot_test_c", "No counter's name.", 2), "_total");
  EXPECT_DEATH(page.gauge("memslot_test_b", "Another help.", 2), "help");
}

}  // namespace
}  // namespace memslot::metrics
