#pragma once
// `bench`: how fast this generator is, measured inside the process that serves. Event `bench`:
//
//   decode, prefill  tokens_per_second; seconds per repeat, median
//   swap             activate_us (median), of a resident memory; load_ms, from payload bytes
//   recompute        ms_per_1000_tokens after a swap at the slot
//   learn_step       seconds per step (median), a full MLP on `tokens` tokens of prose
//   round_trip       median_us, p99_us: observation sent to directive received, the memory resident
//
// Threads: the task's own; numerical work goes through the scheduler, learning beside it.
#include <string>
#include <string_view>

#include "generator/runtime/engine.h"
#include "generator/runtime/learn_worker.h"

namespace memslot {

// `prose`: text to read and learn from; its beginning is taken.
Result<std::string> bench_task(const TaskContext& context, std::string_view arguments,
                               LearnWorker& learner, std::string_view prose);

}  // namespace memslot
