#pragma once
// JSON as text, of nlohmann's kinds. Bytes that are no UTF-8 (a file's name, a model's half
// character) become U+FFFD; the library would throw.
//
// Threads: pure functions.
#include <cstddef>
#include <string>

namespace memslot {

// In one line; in lines of its own with an indent from 0 on.
template <class Json>
std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

// The beginning, for a message about what was found: ASCII, so that no cut halves a character.
template <class Json>
std::string dump_start(const Json& json, std::size_t most) {
  return json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace).substr(0, most);
}

}  // namespace memslot
