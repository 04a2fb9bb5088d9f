#pragma once
// The seed of a randomised test: MEMSLOT_TEST_SEED if set, else 1. Show the hint where a test
// fails.
#include <cstdlib>
#include <string>

namespace memslot {

inline unsigned test_seed() {
  const char* text = std::getenv("MEMSLOT_TEST_SEED");
  return text == nullptr ? 1U : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// For SCOPED_TRACE.
inline std::string seed_hint(unsigned seed) {
  return "rerun with MEMSLOT_TEST_SEED=" + std::to_string(seed);
}

}  // namespace memslot
