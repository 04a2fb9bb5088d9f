#include "controller/link/arguments.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "shared/base/json_depth.h"

namespace memslot {
namespace {

using Json = nlohmann::json;

Result<Json> parse_object(std::string_view text) {
  if (text.empty()) return Json::object();
  if (!json_depth_fits(text)) return invalid("arguments nesting", "at most 64", "deeper");
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return invalid("arguments", "JSON", text.substr(0, 60));
  if (!json.is_object()) return invalid("arguments", "an object", json.type_name());
  return json;
}

Error wrong_type(std::string_view name, std::string_view expected, const Json& found) {
  return invalid(name, expected, std::string_view(found.type_name()));
}

}  // namespace

struct Arguments::Impl {
  Json json;
  std::set<std::string, std::less<>> read;

  const Json* find(std::string_view name) {
    read.emplace(name);
    const auto found = json.find(std::string(name));
    return found == json.end() ? nullptr : &*found;
  }
};

Result<Arguments> Arguments::parse(std::string_view text) {
  MEMSLOT_TRY(Json json, parse_object(text));
  Arguments out;
  out.impl_ = std::make_shared<Impl>();
  out.impl_->json = std::move(json);
  return out;
}

Result<std::optional<std::string>> Arguments::text_if(std::string_view name) {
  const Json* found = impl_->find(name);
  if (found == nullptr || found->is_null()) return std::optional<std::string>();
  if (!found->is_string()) return wrong_type(name, "a text", *found);
  return std::optional<std::string>(found->get<std::string>());
}

Result<std::string> Arguments::text(std::string_view name) {
  MEMSLOT_TRY(auto found, text_if(name));
  if (!found) return invalid(name, "a text", "nothing");
  return std::move(*found);
}

Result<std::uint64_t> Arguments::number_or(std::string_view name, std::uint64_t fallback) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return fallback;
  if (!found->is_number_unsigned()) return wrong_type(name, "a whole number, 0 or more", *found);
  return found->get<std::uint64_t>();
}

Result<std::uint64_t> Arguments::number(std::string_view name) {
  if (!impl_->json.contains(std::string(name))) return invalid(name, "a whole number", "nothing");
  return number_or(name, 0);
}

Result<double> Arguments::real(std::string_view name) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return invalid(name, "a number", "nothing");
  if (!found->is_number()) return wrong_type(name, "a number", *found);
  const double value = found->get<double>();
  if (!std::isfinite(value)) return invalid(name, "a finite number", "another");
  return value;
}

Result<bool> Arguments::flag_or(std::string_view name, bool fallback) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return fallback;
  if (!found->is_boolean()) return wrong_type(name, "true or false", *found);
  return found->get<bool>();
}

Result<std::string> Arguments::object_or(std::string_view name, std::string_view fallback) {
  const Json* found = impl_->find(name);
  if (found == nullptr) return std::string(fallback);
  if (!found->is_object()) return wrong_type(name, "an object", *found);
  return found->dump();
}

Status Arguments::finish() const {
  for (const auto& item : impl_->json.items()) {
    if (!impl_->read.contains(item.key())) {
      return invalid("arguments", "names of docs/formats/tasks.md", item.key());
    }
  }
  return ok();
}

Result<TaskNames> names_of_task(std::string_view arguments) {
  MEMSLOT_TRY(const Json json, parse_object(arguments));
  TaskNames out;
  const Json namespaces = json.value("namespaces", Json::array({"default"}));
  if (!namespaces.is_array()) return wrong_type("namespaces", "a list of texts", namespaces);
  for (const Json& ns : namespaces) {
    if (!ns.is_string()) return wrong_type("namespaces", "a list of texts", ns);
    out.namespaces.push_back(ns.get<std::string>());
  }
  std::vector<Json> memories;
  if (json.contains("memory")) memories.push_back(json["memory"]);
  if (json.contains("memories")) {
    if (!json["memories"].is_array())
      return wrong_type("memories", "a list of texts", json["memories"]);
    for (const Json& memory : json["memories"]) memories.push_back(memory);
  }
  const Json schedule = json.value("schedule", Json::array());
  if (!schedule.is_array()) return wrong_type("schedule", "a list of objects", schedule);
  for (const Json& swap : schedule) {
    if (!swap.is_object()) return wrong_type("schedule", "a list of objects", swap);
    if (swap.contains("memory")) memories.push_back(swap["memory"]);
  }
  for (const Json& memory : memories) {
    if (!memory.is_string()) return wrong_type("memory", "a text", memory);
    auto name = memory.get<std::string>();
    if (name != "auto" && name != "base") out.memories.push_back(std::move(name));
  }
  return out;
}

}  // namespace memslot
