#pragma once
// Figures of a running process, as Prometheus reads them (docs/metrics.md).
//
// Parts count for themselves: a Counter, a Histogram, or a plain number of their own thread. A Page
// collects what they say when somebody asks, so that counting costs a step next to nothing.
//
// Names:   memslot_<process>_..., base units (seconds, bytes), counters end in _total. A label has
//          few values, all known beforehand: never an id or a namespace.
// Threads: Counter and Histogram any, without locks; a Page one.
#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "shared/base/clock.h"

namespace memslot::metrics {

class Counter {
 public:
  void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

// Upper bounds of buckets, in seconds: of what takes microseconds to milliseconds (round trips,
// swaps), and of what takes milliseconds to minutes (tokens, prompts, learning).
inline constexpr std::array kShortTimes = {10e-6, 25e-6,  50e-6, 100e-6, 250e-6, 500e-6,
                                           1e-3,  2.5e-3, 5e-3,  10e-3,  25e-3,  50e-3,
                                           0.1,   0.25,   0.5,   1.0};
inline constexpr std::array kLongTimes = {1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,  0.25,
                                          0.5,  1.0,    2.5,  5.0,   10.0,  30.0,  60.0, 300.0};

// How often a value fell into each bucket.
class Histogram {
 public:
  static constexpr std::size_t kMostBounds = 16;
  // Ascending, at most kMostBounds; they must outlive the histogram.
  explicit Histogram(std::span<const double> bounds);
  // `times`: as if called so often. What is not finite, or negative, is left out.
  void observe(double value, std::uint64_t times = 1);
  void observe(Duration time) { observe(std::chrono::duration<double>(time).count()); }
  void observe_us(double microseconds, std::uint64_t times = 1) {
    observe(microseconds * 1e-6, times);
  }

  struct Reading {
    std::span<const double> bounds;
    std::array<std::uint64_t, kMostBounds + 1> counts{};  // up to bounds[i]; then one: above all
    double sum = 0;  // may be one observation ahead of, or behind, the counts
  };
  Reading read() const;

 private:
  const std::span<const double> bounds_;
  std::array<std::atomic<std::uint64_t>, kMostBounds + 1> counts_{};
  std::atomic<double> sum_ = 0;
};

struct Label {
  std::string_view name, value;
};
using Labels = std::initializer_list<Label>;

// One scrape. A metric with labels is added once for each combination of their values, one after
// the other, with the same help.
class Page {
 public:
  Page();
  ~Page();
  // REQUIRES: the form that Prometheus asks of names; a metric of one type only.
  template <class Number>
  void counter(std::string_view name, std::string_view help, Number value, Labels labels = {}) {
    add_counter(name, help, static_cast<double>(value), labels);
  }
  template <class Number>
  void gauge(std::string_view name, std::string_view help, Number value, Labels labels = {}) {
    add_gauge(name, help, static_cast<double>(value), labels);
  }
  void histogram(std::string_view name, std::string_view help, const Histogram& histogram,
                 Labels labels = {});
  // What every process has: build_info under `prefix`, and Prometheus's own process_*.
  void process(std::string_view prefix);

  std::string text() const;

 private:
  void add_counter(std::string_view name, std::string_view help, double value, Labels labels);
  void add_gauge(std::string_view name, std::string_view help, double value, Labels labels);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Of text().
inline constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

std::size_t resident_set_bytes();  // of this process; 0 where the system does not tell

}  // namespace memslot::metrics
