#include "cli/fields.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string_view>

#include "shared/base/json_dump.h"

namespace memslot::cli {
namespace {

using nlohmann::json;

constexpr std::string_view kTime = "_unix_ms";
constexpr std::string_view kType = "type";  // an event's: its command is known

bool is_time(const std::string& name, const json& value) {
  return name.ends_with(kTime) && value.is_number_integer();
}

std::string shown_name(const std::string& name, const json& value) {
  return is_time(name, value) ? name.substr(0, name.size() - kTime.size()) : name;
}

// A terminal obeys control characters: a text with such is shown as JSON writes it.
std::string text_of(const json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (!value.is_string()) return dump(value);
  const auto& text = value.get_ref<const std::string&>();
  const auto control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  return text.empty() || std::ranges::any_of(text, control) ? dump(value) : text;
}

// Whether it fits behind its name: no objects, and no lists of lists.
bool fits_line(const json& value) {
  if (value.is_object()) return value.empty();
  const auto structured = [](const json& item) { return item.is_structured(); };
  return !value.is_array() || std::none_of(value.begin(), value.end(), structured);
}

std::string line_of(const json& value) {
  if (value.is_object() || (value.is_array() && value.empty())) return "none";
  if (!value.is_array()) return text_of(value);
  std::string out;
  for (const json& item : value) out += (out.empty() ? "" : ", ") + text_of(item);
  return out;
}

void add(const json& value, std::size_t indent, std::string& out);

void add_member(const std::string& name, const json& value, std::size_t indent, std::size_t width,
                std::string& out) {
  out.append(indent, ' ');
  if (!fits_line(value)) {
    out += name + "\n";
    return add(value, indent + 2, out);
  }
  const std::string shown = shown_name(name, value);
  out += shown + std::string(width - shown.size() + 2, ' ');
  out += is_time(name, value) ? time_text(value.get<std::int64_t>()) : line_of(value);
  out += "\n";
}

void add(const json& value, std::size_t indent, std::string& out) {
  if (fits_line(value)) {
    out.append(indent, ' ').append(line_of(value)).append("\n");
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += "\n";
      add(value[i], indent, out);
    }
  } else {
    std::size_t width = 0;
    for (const auto& [name, member] : value.items()) {
      if (!fits_line(member) || name == kType) continue;
      width = std::max(width, shown_name(name, member).size());
    }
    for (const auto& [name, member] : value.items()) {
      if (name != kType) add_member(name, member, indent, width, out);
    }
  }
}

}  // namespace

std::string fields(const json& object) {
  const bool wrapped = object.size() == 1 && !fits_line(object.front());
  std::string out;
  add(wrapped ? object.front() : object, 0, out);
  out.pop_back();
  return out;
}

std::string time_text(std::int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char out[32];
  std::strftime(out, sizeof out, "%Y-%m-%d %H:%M:%S", &parts);
  return out;
}

}  // namespace memslot::cli
