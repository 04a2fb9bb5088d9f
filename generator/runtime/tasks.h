#pragma once
// The tasks that a generator answers: arguments and events are JSON, docs/formats/tasks.md.
//
// Each returns its last event. Errors: of the arguments (task_arguments.h), of the text (not UTF-8,
// empty, longer than the context: kInvalidArgument), of the memory (kNotFound, kMismatch,
// kCorruption), of the controller, kOverloaded, kCancelled. Whatever fails, model and resident set
// stay as they were.
//
// Threads: the task's own thread.
#include <string>
#include <string_view>

#include "generator/runtime/engine.h"

namespace memslot {

Result<std::string> generate_task(const TaskContext& context, std::string_view arguments);
Result<std::string> score_task(const TaskContext& context, std::string_view arguments);
Result<std::string> replay_task(const TaskContext& context, std::string_view arguments);
Result<std::string> tokenize_task(const TaskContext& context, std::string_view arguments);
Result<std::string> attest_task(const TaskContext& context, std::string_view arguments);
// Takes `gate` as learning does, slice by slice behind decoding.
Result<std::string> gains_task(const TaskContext& context, std::string_view arguments,
                               ComputeGate& gate);

}  // namespace memslot
