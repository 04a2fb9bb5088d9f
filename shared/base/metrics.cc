#include "shared/base/metrics.h"

#include <dirent.h>
#include <prometheus/check_names.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <vector>

#include "shared/base/error.h"
#include "shared/base/version.h"

namespace memslot::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Close enough to the process's own: taken before main().
const double kStarted =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

double cpu_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

std::size_t open_files() {
  DIR* const folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  std::size_t count = 0;
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count - std::min<std::size_t>(count, 3);  // ".", ".." and the folder itself
}

double most_files() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<double>::infinity()
                                         : static_cast<double>(limit.rlim_cur);
}

ClientMetric with_labels(Labels labels) {
  ClientMetric out;
  for (const Label& label : labels) {
    MEMSLOT_CHECK(prometheus::CheckLabelName(std::string(label.name)));
    out.label.push_back({std::string(label.name), std::string(label.value)});
  }
  return out;
}

}  // namespace

std::size_t resident_set_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

Histogram::Histogram(std::span<const double> bounds) : bounds_(bounds) {
  MEMSLOT_CHECK(bounds.size() <= kMostBounds && std::ranges::is_sorted(bounds));
}

void Histogram::observe(double value, std::uint64_t times) {
  if (!std::isfinite(value) || value < 0) return;
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)].fetch_add(times, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
}

Histogram::Reading Histogram::read() const {
  Reading out{bounds_, {}, sum_.load(std::memory_order_relaxed)};
  for (std::size_t i = 0; i <= bounds_.size(); ++i) {
    out.counts[i] = counts_[i].load(std::memory_order_relaxed);
  }
  return out;
}

struct Page::Impl {
  std::vector<MetricFamily> families;

  void add(std::string_view name, std::string_view help, MetricType type, ClientMetric metric) {
    const bool same = !families.empty() && families.back().name == name;
    if (!same) {
      const auto known = [&](const MetricFamily& family) { return family.name == name; };
      MEMSLOT_CHECK(std::ranges::none_of(families, known));
      MEMSLOT_CHECK(prometheus::CheckMetricName(std::string(name)));
      MEMSLOT_CHECK(help.find_first_of("\n\\") == std::string_view::npos);  // written as it is
      MEMSLOT_CHECK((type == MetricType::Counter) == name.ends_with("_total"));
      families.push_back({std::string(name), std::string(help), type, {}});
    }
    MetricFamily& family = families.back();
    MEMSLOT_CHECK(family.type == type && family.help == help);
    family.metric.push_back(std::move(metric));
  }
};

Page::Page() : impl_(std::make_unique<Impl>()) {}
Page::~Page() = default;

void Page::add_counter(std::string_view name, std::string_view help, double value, Labels labels) {
  ClientMetric metric = with_labels(labels);
  metric.counter.value = value;
  impl_->add(name, help, MetricType::Counter, std::move(metric));
}

void Page::add_gauge(std::string_view name, std::string_view help, double value, Labels labels) {
  ClientMetric metric = with_labels(labels);
  metric.gauge.value = value;
  impl_->add(name, help, MetricType::Gauge, std::move(metric));
}

void Page::histogram(std::string_view name, std::string_view help, const Histogram& histogram,
                     Labels labels) {
  const Histogram::Reading reading = histogram.read();
  ClientMetric metric = with_labels(labels);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i <= reading.bounds.size(); ++i) {
    count += reading.counts[i];
    const double bound =
        i < reading.bounds.size() ? reading.bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({count, bound});
  }
  metric.histogram.sample_count = count;
  metric.histogram.sample_sum = reading.sum;
  impl_->add(name, help, MetricType::Histogram, std::move(metric));
}

void Page::process(std::string_view prefix) {
  gauge(std::string(prefix) + "_build_info", "Always 1; the label says which build this is.", 1,
        {{"build", build_version()}});
  counter("process_cpu_seconds_total", "Processor time used, of user and system, in seconds.",
          cpu_seconds());
  gauge("process_resident_memory_bytes", "Resident memory (RSS), in bytes.", resident_set_bytes());
  gauge("process_start_time_seconds", "When the process started, in seconds since the Unix epoch.",
        kStarted);
  gauge("process_open_fds", "Open file descriptors.", open_files());
  gauge("process_max_fds", "Most file descriptors that may be open.", most_files());
}

std::string Page::text() const { return prometheus::TextSerializer().Serialize(impl_->families); }

}  // namespace memslot::metrics
