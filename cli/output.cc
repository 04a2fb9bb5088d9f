#include "cli/output.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "shared/base/digest.h"
#include "shared/base/json_dump.h"

namespace memslot::cli {
namespace {

// xterm-256 colours that read well on light and on dark backgrounds.
constexpr int kPalette[] = {33, 166, 71, 133, 172, 37, 168, 99, 142, 202, 62, 35};

void put(std::FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

}  // namespace

Output::Output(bool json, bool stream)
    : json_(json),
      stream_(stream),
      colour_(!json && isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr),
      progress_(isatty(STDERR_FILENO) == 1) {}

void Output::result(const nlohmann::json& value) const {
  if (!json_) return;
  put(stdout, dump(value) + "\n");
  has_result_ = true;
}

void Output::event(const nlohmann::json& value) const {
  if (json_ && stream_) put(stdout, dump(value) + "\n");
}

void Output::line(std::string_view text) const {
  if (!json_) put(stdout, std::string(text) + "\n");
}

void Output::text(std::string_view text) const {
  if (!json_) put(stdout, text);
}

void Output::status(std::string_view text) const {
  if (progress_) put(stderr, "\r\x1b[2K" + std::string(text));
}

void Output::clear_status() const {
  if (progress_) put(stderr, "\r\x1b[2K");
}

void Output::note(std::string_view text) const {
  if (!json_) put(stderr, "memslot: " + std::string(text) + "\n");
}

int Output::fail(const Error& error) const {
  clear_status();
  const std::string_view name = error_code_name(error.code);
  if (json_ && !has_result_) {
    const nlohmann::json said = {{"error", {{"code", name}, {"message", error.message}}}};
    put(stdout, dump(said) + "\n");
  } else {
    put(stderr, "memslot: " + error.message + " (" + std::string(name) + ")\n");
  }
  return exit_code(error.code);
}

int Output::usage(std::string_view text) const {
  put(stderr, "memslot: " + std::string(text) + "\n");
  return 2;
}

std::string Output::coloured(std::string_view memory, std::string_view text) const {
  if (!colour_ || memory == "base" || memory.empty()) return std::string(text);
  const auto name = memory.substr(0, memory.find('@'));
  const auto colour = kPalette[xxh128(bytes_of(name)).low % std::size(kPalette)];
  return "\x1b[38;5;" + std::to_string(colour) + "m" + std::string(text) + "\x1b[0m";
}

std::string Output::dim(std::string_view text) const {
  return colour_ ? "\x1b[2m" + std::string(text) + "\x1b[0m" : std::string(text);
}

std::string Output::bold(std::string_view text) const {
  return colour_ ? "\x1b[1m" + std::string(text) + "\x1b[0m" : std::string(text);
}

std::string figure(const nlohmann::json& object, const char* name, const char* format,
                   double scale) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number()) return "-";
  char text[64];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  std::snprintf(text, sizeof text, format, scale * found->get<double>());
#pragma GCC diagnostic pop
  return text;
}

}  // namespace memslot::cli
