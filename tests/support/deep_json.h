#pragma once
// JSON that kills whoever copies or prints it with a recursive function.
#include <string>

namespace memslot {

// `before`, lists one in the other, `after`; valid where what is around them is.
inline std::string deep_json(const std::string& before, const std::string& after,
                             std::size_t depth = 500'000) {
  return before + std::string(depth, '[') + std::string(depth, ']') + after;
}

}  // namespace memslot
