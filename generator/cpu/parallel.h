#pragma once
// Work over rows on a fixed number of OpenMP threads (libgomp, the runtime that oneDNN uses too).
//
// Rows are cut into contiguous parts; which thread computes a row never changes its bits, since no
// operation here combines values of two rows.
// Threads: call from the backend's compute thread; not from inside another parallel region.
#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace memslot::cpu {

// Calls fn(first, last) for disjoint parts of [0, rows), each of at least `grain` rows (but the
// last), on at most `threads` threads; on the calling thread alone where one part is enough.
template <class Fn>
void parallel_rows(int threads, std::int64_t rows, std::int64_t grain, const Fn& fn) {
  const std::int64_t parts =
      std::min<std::int64_t>(threads, grain <= 0 ? rows : rows / std::max<std::int64_t>(grain, 1));
  if (parts <= 1) {
    if (rows > 0) fn(std::int64_t{0}, rows);
    return;
  }
#pragma omp parallel for num_threads(static_cast <int>(parts)) schedule(static)
  for (std::int64_t part = 0; part < parts; ++part) {
    fn(rows * part / parts, rows * (part + 1) / parts);
  }
}

// The rows that are worth a thread's start when each costs about `cost` element operations.
inline std::int64_t row_grain(std::int64_t cost) {
  constexpr std::int64_t kWorthwhile = 16384;  // about 3 us, the price of waking a thread
  return std::max<std::int64_t>(1, kWorthwhile / std::max<std::int64_t>(cost, 1));
}

// Calls fn(task) for every task in [0, tasks), in order of availability: for tasks of unequal cost.
template <class Fn>
void parallel_tasks(int threads, std::int64_t tasks, const Fn& fn) {
  if (threads <= 1 || tasks <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) fn(task);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (std::int64_t task = 0; task < tasks; ++task) fn(task);
}

}  // namespace memslot::cpu
