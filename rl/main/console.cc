#include "rl/main/console.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>
#include "shared/base/json_dump.h"

namespace memslot::rl_program {
namespace {

void put(std::FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

}  // namespace

Console::Console(bool json) : json_(json), terminal_(isatty(STDERR_FILENO) == 1) {}

void Console::result(const nlohmann::json& value) const {
  if (json_) put(stdout, dump(value) + "\n");
}

void Console::line(std::string_view text) const {
  clear_status();
  if (!json_) put(stdout, std::string(text) + "\n");
}

void Console::status(std::string_view text) const {
  if (terminal_) put(stderr, "\r\x1b[2K" + std::string(text));
}

void Console::clear_status() const {
  if (terminal_) put(stderr, "\r\x1b[2K");
}

int Console::fail(const Error& error) const {
  clear_status();
  const std::string_view name = error_code_name(error.code);
  if (json_) {
    const nlohmann::json said = {{"error", {{"code", name}, {"message", error.message}}}};
    put(stdout, dump(said) + "\n");
  } else {
    put(stderr, "memslot: " + error.message + " (" + std::string(name) + ")\n");
  }
  return exit_code(error.code);
}

std::string format(const char* form, ...) {
  char text[512];
  va_list values;
  va_start(values, form);
  std::vsnprintf(text, sizeof text, form, values);
  va_end(values);
  return text;
}

}  // namespace memslot::rl_program
