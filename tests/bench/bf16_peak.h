#pragma once
// What the processor could do at best: bf16 dot products on registers alone, all threads at once.
// 0 where it has none.
#include <immintrin.h>
#include <omp.h>

#include <algorithm>

#include "tests/bench/timing_backend.h"

namespace memslot::bench {

// Independent sums, so that the latency of one is hidden; each in a register of its own. No two
// begin alike: of equal chains the compiler makes one, and the peak would come out several times
// too high.
__attribute__((target("avx512f,avx512bf16"))) inline float bf16_dot_products(int rounds) {
  __m512 s0 = _mm512_set1_ps(0), s1 = _mm512_set1_ps(1), s2 = _mm512_set1_ps(2);
  __m512 s3 = _mm512_set1_ps(3), s4 = _mm512_set1_ps(4), s5 = _mm512_set1_ps(5);
  __m512 s6 = _mm512_set1_ps(6), s7 = _mm512_set1_ps(7), t0 = _mm512_set1_ps(8);
  __m512 t1 = _mm512_set1_ps(9), t2 = _mm512_set1_ps(10), t3 = _mm512_set1_ps(11);
  __m512 t4 = _mm512_set1_ps(12), t5 = _mm512_set1_ps(13), t6 = _mm512_set1_ps(14);
  __m512 t7 = _mm512_set1_ps(15);
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
  for (int i = 0; i < rounds; ++i) {
    s0 = _mm512_dpbf16_ps(s0, a, a), s1 = _mm512_dpbf16_ps(s1, a, a);
    s2 = _mm512_dpbf16_ps(s2, a, a), s3 = _mm512_dpbf16_ps(s3, a, a);
    s4 = _mm512_dpbf16_ps(s4, a, a), s5 = _mm512_dpbf16_ps(s5, a, a);
    s6 = _mm512_dpbf16_ps(s6, a, a), s7 = _mm512_dpbf16_ps(s7, a, a);
    t0 = _mm512_dpbf16_ps(t0, a, a), t1 = _mm512_dpbf16_ps(t1, a, a);
    t2 = _mm512_dpbf16_ps(t2, a, a), t3 = _mm512_dpbf16_ps(t3, a, a);
    t4 = _mm512_dpbf16_ps(t4, a, a), t5 = _mm512_dpbf16_ps(t5, a, a);
    t6 = _mm512_dpbf16_ps(t6, a, a), t7 = _mm512_dpbf16_ps(t7, a, a);
  }
  const __m512 all = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + t0 + t1 + t2 + t3 + t4 + t5 + t6 + t7;
  return _mm512_cvtss_f32(all);  // keeps the loop alive
}

inline double bf16_peak_gflops(int threads, bool processor_time) {
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  constexpr int kRounds = 2'000'000;  // 16 products of 32 pairs each
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    float kept = 0;
    const double start = seconds_now(processor_time);
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    kept += bf16_dot_products(kRounds);
    const double seconds = seconds_now(processor_time) - start;
    if (kept > 0) best = std::max(best, 1e-9 * kRounds * 16 * 64 * threads / seconds);
  }
  return best;
}

}  // namespace memslot::bench
