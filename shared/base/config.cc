#include "shared/base/config.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <toml.hpp>

#include "shared/base/version.h"

namespace memslot {
namespace {

template <class... Lambdas>
struct Overloaded : Lambdas... {
  using Lambdas::operator()...;
};
template <class... Lambdas>
Overloaded(Lambdas...) -> Overloaded<Lambdas...>;

const char* type_name(const ConfigField& field) {
  return std::visit(
      Overloaded{[](std::string*) { return "text"; }, [](bool*) { return "true or false"; },
                 [](std::int64_t*) { return "integer"; }, [](double*) { return "number"; },
                 [](std::vector<std::string>*) { return "list of texts"; }},
      field.target);
}

std::string join(const std::vector<std::string>& items, std::string_view separator) {
  std::string out;
  for (const std::string& item : items) {
    if (!out.empty()) out += separator;
    out += item;
  }
  return out;
}

std::string value_text(const ConfigField& field) {
  return std::visit(Overloaded{[](const std::string* v) { return *v; },
                               [](const bool* v) { return std::string(*v ? "true" : "false"); },
                               [](const std::int64_t* v) { return fmt::format("{}", *v); },
                               [](const double* v) { return fmt::format("{}", *v); },
                               [](const std::vector<std::string>* v) { return join(*v, ";"); }},
                    field.target);
}

std::string bounds_text(const ConfigField& field) {
  if (!field.choices.empty()) return join(field.choices, ", ");
  const bool low = field.min != -std::numeric_limits<double>::infinity();
  const bool high = field.max != std::numeric_limits<double>::infinity();
  if (low && high) return fmt::format("{} to {}", field.min, field.max);
  if (low) return fmt::format("at least {}", field.min);
  if (high) return fmt::format("at most {}", field.max);
  return "";
}

Error bad_value(const ConfigField& field, std::string_view where, std::string_view expected,
                std::string_view found) {
  return invalid(fmt::format("{} ({})", field.name, where), expected, fmt::format("'{}'", found));
}

template <class Number>
Status set_number(const ConfigField& field, Number* target, Number value, std::string_view where) {
  const double as_double = static_cast<double>(value);
  if (!(as_double >= field.min && as_double <= field.max)) {
    return bad_value(field, where, bounds_text(field), fmt::format("{}", value));
  }
  *target = value;
  return ok();
}

Status set_text(const ConfigField& field, std::string* target, std::string_view value,
                std::string_view where) {
  const auto& choices = field.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), value) == choices.end()) {
    return bad_value(field, where, "one of " + join(choices, ", "), value);
  }
  *target = std::string(value);
  return ok();
}

template <class Number>
Status parse_number(const ConfigField& field, Number* target, std::string_view text,
                    std::string_view where) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return bad_value(field, where, type_name(field), text);
  }
  return set_number(field, target, value, where);
}

Status parse_bool(const ConfigField& field, bool* target, std::string_view text,
                  std::string_view where) {
  if (text != "true" && text != "false") return bad_value(field, where, type_name(field), text);
  *target = text == "true";
  return ok();
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    if (end > 0) items.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return items;
}

Status set_from_text(const ConfigField& field, std::string_view text, std::string_view where) {
  return std::visit(Overloaded{[&](std::string* t) { return set_text(field, t, text, where); },
                               [&](bool* t) { return parse_bool(field, t, text, where); },
                               [&](std::int64_t* t) { return parse_number(field, t, text, where); },
                               [&](double* t) { return parse_number(field, t, text, where); },
                               [&](std::vector<std::string>* t) {
                                 *t = split_list(text);
                                 return ok();
                               }},
                    field.target);
}

Status set_list_from_toml(const ConfigField& field, std::vector<std::string>* target,
                          const toml::value& value, std::string_view where) {
  std::vector<std::string> items;
  for (const toml::value& item : value.as_array(std::nothrow)) {
    if (!item.is_string()) return bad_value(field, where, type_name(field), toml::format(item));
    items.push_back(item.as_string(std::nothrow).str);
  }
  *target = std::move(items);
  return ok();
}

Status set_from_toml(const ConfigField& field, const toml::value& value, std::string_view where) {
  const auto wrong = [&] { return bad_value(field, where, type_name(field), toml::format(value)); };
  return std::visit(
      Overloaded{[&](std::string* t) -> Status {
                   if (!value.is_string()) return wrong();
                   return set_text(field, t, value.as_string(std::nothrow).str, where);
                 },
                 [&](bool* t) -> Status {
                   if (!value.is_boolean()) return wrong();
                   *t = value.as_boolean(std::nothrow);
                   return ok();
                 },
                 [&](std::int64_t* t) -> Status {
                   if (!value.is_integer()) return wrong();
                   return set_number(field, t, std::int64_t{value.as_integer(std::nothrow)}, where);
                 },
                 [&](double* t) -> Status {
                   if (value.is_integer()) {
                     const auto integer = value.as_integer(std::nothrow);
                     return set_number(field, t, static_cast<double>(integer), where);
                   }
                   if (!value.is_floating()) return wrong();
                   return set_number(field, t, double{value.as_floating(std::nothrow)}, where);
                 },
                 [&](std::vector<std::string>* t) -> Status {
                   if (!value.is_array()) return wrong();
                   return set_list_from_toml(field, t, value, where);
                 }},
      field.target);
}

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string underscored(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

std::string upper(std::string name) {
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

// toml11 throws; this is the one place where it does.
Result<toml::value> parse_toml(const std::string& path) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) {
    return Error{ErrorCode::kNotFound, "config: expected a file, found none at " + path};
  }
  try {
    return toml::parse(path);
  } catch (const toml::syntax_error& e) {
    return Error{ErrorCode::kInvalidArgument, "config " + path + ": " + e.what()};
  } catch (const std::exception& e) {
    return Error{ErrorCode::kIo, "config " + path + ": " + e.what()};
  }
}

bool is_bool(const ConfigField& field) { return std::holds_alternative<bool*>(field.target); }

// "  --name   words", wrapped into a column.
std::string option_lines(const std::string& name, std::string_view words) {
  constexpr std::size_t kColumn = 25, kWidth = 100;
  std::string out = fmt::format("  --{:<{}}", name, kColumn - 5);
  std::size_t at = out.size();
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(' '), words.size());
    if (at + 1 + end > kWidth) {
      out += "\n" + std::string(kColumn - 1, ' ');
      at = kColumn - 1;
    }
    out += " " + std::string(words.substr(0, end));
    at += 1 + end;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return out + "\n";
}

}  // namespace

ConfigTable::ConfigTable(std::string program, std::string environment_prefix, std::string about,
                         std::string more)
    : program_(std::move(program)),
      prefix_(std::move(environment_prefix)),
      about_(std::move(about)),
      more_(std::move(more)) {}

void ConfigTable::add(ConfigField field) {
  MEMSLOT_CHECK(find(field.name) == nullptr);
  MEMSLOT_CHECK(std::visit([](auto* target) { return target != nullptr; }, field.target));
  std::string default_text = value_text(field);
  entries_.push_back({std::move(field), std::move(default_text)});
}

ConfigTable::Entry* ConfigTable::find(std::string_view name) {
  for (Entry& entry : entries_) {
    if (entry.field.name == name) return &entry;
  }
  return nullptr;
}

Status ConfigTable::load_file(const std::string& path) {
  MEMSLOT_TRY(const toml::value file, parse_toml(path));
  for (const auto& [name, value] : file.as_table(std::nothrow)) {
    Entry* entry = find(name);
    if (entry == nullptr) {
      return invalid("config " + path, "a name of --help-config", "'" + name + "'");
    }
    MEMSLOT_TRY(set_from_toml(entry->field, value, path));
  }
  return ok();
}

Status ConfigTable::load_environment(const char* const* environment) {
  const std::string start = prefix_ + "_";
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view item(*environment);
    if (!item.starts_with(start)) continue;
    const std::string variable(item.substr(0, item.find('=')));
    const auto matches = [&](const Entry& e) { return start + upper(e.field.name) == variable; };
    const auto entry = std::find_if(entries_.begin(), entries_.end(), matches);
    if (variable == start + "CONFIG") continue;
    if (entry == entries_.end()) {
      return invalid("environment", start + "<a name of --help-config>", variable);
    }
    const std::size_t value_at = std::min(variable.size() + 1, item.size());
    MEMSLOT_TRY(set_from_text(entry->field, item.substr(value_at), variable));
  }
  return ok();
}

Status ConfigTable::load_arguments(const std::vector<std::string_view>& arguments) {
  std::vector<const Entry*> begun_lists;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const std::size_t equals = argument.find('=');
    const std::string_view option = argument.substr(0, equals);
    Entry* entry = option.starts_with("--") ? find(underscored(option.substr(2))) : nullptr;
    const bool is_config = option == "--config";
    if (entry == nullptr && !is_config) {
      return invalid("command line", "an option of --help", fmt::format("'{}'", argument));
    }
    std::string_view value;
    if (equals != std::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (entry != nullptr && is_bool(entry->field)) {
      value = "true";
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return invalid(option, "a value", "the end of the command line");
    }
    if (is_config) continue;  // read before
    if (auto* list = std::get_if<std::vector<std::string>*>(&entry->field.target)) {
      if (std::find(begun_lists.begin(), begun_lists.end(), entry) == begun_lists.end()) {
        begun_lists.push_back(entry);
        (*list)->clear();
      }
      (*list)->emplace_back(value);
      continue;
    }
    MEMSLOT_TRY(set_from_text(entry->field, value, option));
  }
  return ok();
}

Result<ConfigOutcome> ConfigTable::load(int argc, const char* const* argv,
                                        const char* const* environment) {
  const std::vector<std::string_view> arguments(argv + std::min(argc, 1), argv + argc);
  std::string path;
  const std::string config_variable = prefix_ + "_CONFIG=";
  for (const char* const* e = environment; e != nullptr && *e != nullptr; ++e) {
    if (std::string_view(*e).starts_with(config_variable)) path = *e + config_variable.size();
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--help") return ConfigOutcome{.run = false, .text = usage()};
    if (arguments[i] == "--version") {
      return ConfigOutcome{.run = false,
                           .text = program_ + " " + std::string(build_version()) + "\n"};
    }
    if (arguments[i] == "--help-config") return ConfigOutcome{.run = false, .text = describe()};
    if (arguments[i].starts_with("--config=")) path = arguments[i].substr(9);
    if (arguments[i] == "--config" && i + 1 < arguments.size()) path = arguments[i + 1];
  }
  if (!path.empty()) {
    MEMSLOT_TRY(load_file(path));
  }
  MEMSLOT_TRY(load_environment(environment));
  MEMSLOT_TRY(load_arguments(arguments));
  return ConfigOutcome{};
}

std::string ConfigTable::describe() const {
  std::string out =
      "| name | type | unit | default | accepted | meaning |\n|---|---|---|---|---|---|\n";
  for (const Entry& entry : entries_) {
    const ConfigField& f = entry.field;
    const std::string shown = entry.default_text.empty() ? "" : "`" + entry.default_text + "`";
    out += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", f.name, type_name(f), f.unit, shown,
                       bounds_text(f), f.help);
  }
  return out;
}

std::string ConfigTable::usage() const {
  std::string out = fmt::format("usage: {} [--config FILE] [--NAME VALUE]...\n", program_);
  if (!about_.empty()) out += about_ + "\n";
  out += "\n";
  for (const Entry& entry : entries_) {
    const ConfigField& f = entry.field;
    const std::string unit = f.unit.empty() ? "" : ", " + f.unit;
    const std::string shown = entry.default_text.empty() ? "none" : entry.default_text;
    out += option_lines(dashed(f.name),
                        fmt::format("{} ({}{}; default {})", f.help, type_name(f), unit, shown));
  }
  out += option_lines("help-config", "the same as a table, with what is accepted");
  out += option_lines("version", "which build this is");
  out += fmt::format("\nEvery name can stand in FILE (TOML) and as {}_NAME in the environment.\n",
                     prefix_);
  if (!more_.empty()) out += "\n" + more_ + "\n";
  return out;
}

}  // namespace memslot
