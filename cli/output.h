#pragma once
// How the CLI shows things: one JSON object with --json, text otherwise; colours only on a terminal
// and never with NO_COLOR.
//
// Threads: one.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "shared/base/error.h"

namespace memslot::cli {

class Output {
 public:
  Output(bool json, bool stream);

  bool json() const { return json_; }
  bool stream() const { return stream_; }
  bool colour() const { return colour_; }
  bool progress() const { return progress_; }  // standard error is a terminal

  // The command's result: printed whole with --json, else not at all (the command prints text).
  void result(const nlohmann::json& value) const;
  // One event, as a line of its own, with --json --stream.
  void event(const nlohmann::json& value) const;
  void line(std::string_view text) const;    // standard output; silent with --json
  void text(std::string_view text) const;    // without a newline, flushed
  void status(std::string_view text) const;  // standard error, replaces the last status line
  void clear_status() const;
  void note(std::string_view text) const;  // standard error, a line that stays; silent with --json
  // Prints the error and returns the exit code for it: with --json as the one object on standard
  // output, unless a result stands there already (a report of damage); else to standard error.
  int fail(const Error& error) const;

  // Prints what is wrong with the command line; the exit code for that.
  int usage(std::string_view text) const;

  // `text` in the colour that stands for `memory` ("base": plain).
  std::string coloured(std::string_view memory, std::string_view text) const;
  std::string dim(std::string_view text) const;
  std::string bold(std::string_view text) const;

 private:
  bool json_, stream_, colour_, progress_;
  mutable bool has_result_ = false;  // standard output holds its one object
};

// A number of `object` as printf's `format` (for one double) writes it, times `scale`; "-" where it
// was not measured (absent or null).
std::string figure(const nlohmann::json& object, const char* name, const char* format,
                   double scale = 1);

}  // namespace memslot::cli
