#include "shared/memory/layout/checks.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace memslot::layout {

Status expect_kind(const MemoryPayload& payload, MemoryKind kind) {
  if (payload.kind() == kind) return ok();
  return mismatch("memory kind", memory_kind_name(kind), memory_kind_name(payload.kind()));
}

Status expect_tensors(const MemoryPayload& payload, std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    const auto count = std::ranges::count(payload.tensors(), name,
                                          [](const auto& t) { return std::string_view(t.name); });
    if (count != 1) return corrupt("tensors named '" + std::string(name) + "'", 1, count);
  }
  for (const MemoryPayload::Tensor& tensor : payload.tensors()) {
    if (std::ranges::find(names, std::string_view(tensor.name)) == names.end()) {
      return corrupt("tensor of a " + std::string(memory_kind_name(payload.kind())) + " payload",
                     "none of its name", "'" + tensor.name + "'");
    }
  }
  return ok();
}

Result<double> number(const MemoryPayload& payload, std::string_view name, double low,
                      double high) {
  MEMSLOT_TRY(const double value, payload.scalar(name));
  if (std::isfinite(value) && value >= low && value <= high) return value;
  return corrupt("scalar '" + std::string(name) + "'",
                 "a number from " + std::to_string(low) + " to " + std::to_string(high),
                 std::to_string(value));
}

Result<std::int64_t> integer(const MemoryPayload& payload, std::string_view name, std::int64_t low,
                             std::int64_t high) {
  MEMSLOT_TRY(const double value,
              number(payload, name, static_cast<double>(low), static_cast<double>(high)));
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);
  return corrupt("scalar '" + std::string(name) + "'", "a whole number", std::to_string(value));
}

}  // namespace memslot::layout
