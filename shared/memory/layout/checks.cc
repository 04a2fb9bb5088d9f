#include "shared/memory/layout/checks.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace memslot::layout {
namespace {

constexpr std::size_t kMaxListed = 12;

std::string listed(std::span<const std::string_view> names) {
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) {
    out.append(i == 0 ? "" : ", ").append(names[i]);
  }
  if (names.size() > kMaxListed) out += ", ...";
  return out.empty() ? "none" : out;
}

}  // namespace

Status expect_kind(const MemoryPayload& payload, MemoryKind kind) {
  if (payload.kind() == kind) return ok();
  return mismatch("memory kind", memory_kind_name(kind), memory_kind_name(payload.kind()));
}

Status expect_tensors(const MemoryPayload& payload, std::span<const std::string_view> names) {
  std::vector<std::string_view> found, expected(names.begin(), names.end());
  for (const MemoryPayload::Tensor& tensor : payload.tensors()) found.push_back(tensor.name);
  std::ranges::sort(found);
  std::ranges::sort(expected);
  if (found == expected) return ok();
  const SlotSignature& s = payload.signature();
  return memslot::mismatch("tensors of a payload of kind " + std::string(memory_kind_name(s.kind)) +
                               " and form " + std::string(mlp_form_name(s.form)),
                           listed(expected), listed(found));
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
