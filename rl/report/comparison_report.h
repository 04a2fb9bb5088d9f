#pragma once
// A comparison as JSON and as a page (docs/formats/training.md), and the file in which a generator
// measures schedules.
//
// Errors:  read_measured(): kNotFound, kIo, kCorruption (a line that is no schedule of the table, a
//          gain that is no finite number).
// Threads: pure functions.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "rl/comparison.h"

namespace memslot {

nlohmann::json json_of(const Comparison& comparison);

// `about` is the JSON's: table, checkpoints.
std::string page_of(const Comparison& comparison, const nlohmann::json& about);

// One JSON object a line: stream, first (the step of the first decision), actions ("base" or a
// reference of the table's).
std::string text_of(const GainTable& table, const StreamEnv& env,
                    const std::vector<Schedule>& schedules);
// The same lines with "gain", one number a decision.
Result<MeasuredGains> read_measured(const GainTable& table, const std::string& path);

}  // namespace memslot
