#pragma once
// Pieces of JSON that several tasks' events share. Only for .cc files: it brings nlohmann/json
// along.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "generator/runtime/step_loop.h"
#include "generator/runtime/task_arguments.h"
#include "shared/base/json_dump.h"  // for every event
#include "shared/wire/names.h"      // reason_name, memory_name

namespace memslot {

// The fields of a `step` event but for `text`.
nlohmann::json step_event(const StepReport& report, std::uint32_t slot);

// Ids of a task's text. kInvalidArgument (not UTF-8, empty), kNotFound (no tokenizer).
Result<std::vector<std::int32_t>> ids_of(const Tokenizer* tokenizer, const TextArguments& text);

}  // namespace memslot
