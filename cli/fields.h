#pragma once
// What a command found, for people: a line for each figure, `name  value`, what belongs to one name
// indented below it. Times (*_unix_ms) are dates, what was not measured is "-".
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace memslot::cli {

// Of an object (of the only one in it, where there is one); without a newline at the end.
std::string fields(const nlohmann::json& object);

// "2026-11-23 17:20:05", UTC.
std::string time_text(std::int64_t unix_ms);

}  // namespace memslot::cli
