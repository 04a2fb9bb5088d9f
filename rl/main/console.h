#pragma once
// How memslot-rl shows things, as memslot does: one JSON object with --json, text otherwise; a
// status line that is written over only where standard error is a terminal.
//
// Threads: one.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "shared/base/error.h"

namespace memslot::rl_program {

class Console {
 public:
  explicit Console(bool json);

  bool json() const { return json_; }
  void result(const nlohmann::json& value) const;  // with --json only
  void line(std::string_view text) const;          // standard output; silent with --json
  void status(std::string_view text) const;        // replaces the last status
  void clear_status() const;
  // Prints the error; the exit code for it.
  int fail(const Error& error) const;

 private:
  bool json_, terminal_;
};

// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* form, ...);

}  // namespace memslot::rl_program
