#pragma once
// Reads named values out of a JSON object and remembers which were asked for, so that what was not
// is refused. Only for .cc files: it brings nlohmann/json along.
//
// The first error sticks; values read after it are the defaults. finish() tells.
// Threads: one.
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"
#include "shared/base/json_depth.h"
#include "shared/base/json_dump.h"
#include "shared/base/utf8.h"

namespace memslot {

class ArgumentReader {
 public:
  explicit ArgumentReader(std::string_view json) {
    if (!json_depth_fits(json)) {
      fail("arguments nesting", "at most 64", "deeper");
    } else if (json.empty()) {
      object_ = nlohmann::json::object();
    } else {
      object_ = nlohmann::json::parse(json, nullptr, false);
    }
    if (object_.is_discarded()) fail("arguments", "a JSON object", "text that is not JSON");
    if (!object_.is_object() && !error_) fail("arguments", "a JSON object", object_.type_name());
  }

  bool has(const char* name) const { return object_.is_object() && object_.contains(name); }

  void text(const char* name, std::string* out) {
    if (const auto* v = take(name)) {
      if (v->is_string())
        *out = v->get<std::string>();
      else
        wrong(name, "a text", *v);
    }
  }
  void flag(const char* name, bool* out) {
    if (const auto* v = take(name)) {
      if (v->is_boolean())
        *out = v->get<bool>();
      else
        wrong(name, "true or false", *v);
    }
  }
  template <class Int>
  void integer(const char* name, Int* out, std::int64_t min, std::int64_t max) {
    if (const auto* v = take(name)) {
      const std::string range =
          "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
      const bool fits =
          v->is_number_integer() &&
          (!v->is_number_unsigned() ||
           v->get<std::uint64_t>() <=
               static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) &&
          v->get<std::int64_t>() >= min && v->get<std::int64_t>() <= max;
      if (fits)
        *out = static_cast<Int>(v->get<std::int64_t>());
      else
        wrong(name, range, *v);
    }
  }
  void number(const char* name, double* out) {
    if (const auto* v = take(name)) {
      if (v->is_number())
        *out = v->get<double>();
      else
        wrong(name, "a number", *v);
    }
  }
  void texts(const char* name, std::vector<std::string>* out) {
    if (const auto* v = take(name)) {
      std::vector<std::string> list;
      if (!v->is_array()) return wrong(name, "a list of texts", *v);
      for (const auto& item : *v) {
        if (!item.is_string()) return wrong(name, "a list of texts", item);
        list.push_back(item.get<std::string>());
      }
      *out = std::move(list);
    }
  }
  void ids(const char* name, std::vector<std::int32_t>* out) {
    if (const auto* v = take(name)) {
      if (!v->is_array()) return wrong(name, "a list of token ids", *v);
      for (const auto& item : *v) {
        if (!item.is_number_integer() || item.get<std::int64_t>() < 0 ||
            item.get<std::int64_t>() > std::numeric_limits<std::int32_t>::max()) {
          return wrong(name, "a list of token ids", item);
        }
        out->push_back(item.get<std::int32_t>());
      }
    }
  }
  // The value itself, null if absent.
  const nlohmann::json* take(const char* name) {
    asked_.insert(name);
    if (error_ || !object_.is_object()) return nullptr;
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }

  void wrong(const char* name, std::string_view expected, const nlohmann::json& found) {
    std::string shown = dump(found);
    if (shown.size() > 60) shown = head_of(shown, 57) + "...";
    fail(std::string("argument ") + name, expected, shown);
  }
  void fail(std::string_view what, std::string_view expected, std::string_view found) {
    if (!error_) error_ = invalid(what, expected, found);
  }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }

  // The first error, or one for the first name that nobody asked for.
  Status finish() {
    if (error_) return *error_;
    for (const auto& [name, value] : object_.items()) {
      if (asked_.contains(name)) continue;
      std::string known;
      for (const std::string& a : asked_) known += (known.empty() ? "" : ", ") + a;
      return invalid("argument name", known.empty() ? "none" : "one of " + known, name);
    }
    return ok();
  }

 private:
  nlohmann::json object_;
  std::set<std::string> asked_;
  std::optional<Error> error_;
};

}  // namespace memslot
