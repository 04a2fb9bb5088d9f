#pragma once
// The JSON object with which clients name a task's or verb's arguments (docs/formats/tasks.md).
// Each is read once by name; finish() refuses what nobody read, so that a typing error is never a
// silent default.
//
// Errors: kInvalidArgument, naming argument, expected and found.
// Threads: one.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

class Arguments {
 public:
  static Result<Arguments> parse(std::string_view json);  // "" is an empty object

  Result<std::string> text(std::string_view name);  // required
  Result<std::optional<std::string>> text_if(std::string_view name);
  Result<std::uint64_t> number(std::string_view name);  // required
  Result<std::uint64_t> number_or(std::string_view name, std::uint64_t fallback);
  Result<double> real(std::string_view name);  // required; finite
  Result<bool> flag_or(std::string_view name, bool fallback);
  Result<std::string> object_or(std::string_view name, std::string_view fallback);  // as JSON
  Status finish() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared: a Result of it must be copyable
};

// What a relayed task asks to see: `namespaces` (["default"] if absent) and every memory that
// `memory` and `schedule` name, for the check against the client's own.
struct TaskNames {
  std::vector<std::string> namespaces;
  std::vector<std::string> memories;  // without "auto" and "base"
};
// kInvalidArgument: not an object, or these not as described.
Result<TaskNames> names_of_task(std::string_view arguments);

}  // namespace memslot
