#include "storage/bank_store.h"

#include <array>
#include <charconv>

#include "shared/base/rng.h"

namespace memslot {
namespace {

std::string base36(std::uint64_t value, std::size_t width) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 36).ptr;
  const std::string text(digits.data(), end);
  return text.size() < width ? std::string(width - text.size(), '0') + text : text;
}

}  // namespace

std::string new_token(const Clock& clock) {
  // 9 digits of base 36 hold milliseconds until the year 5188; 13 hold any 64-bit number.
  return base36(static_cast<std::uint64_t>(clock.unix_ms()), 9) + "-" + base36(random_nonce(), 13);
}

}  // namespace memslot
