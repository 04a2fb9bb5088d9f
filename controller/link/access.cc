#include "controller/link/access.h"

#include <algorithm>
#include <sstream>

#include "shared/memory/record.h"
#include "shared/transport/keys.h"

namespace memslot {
namespace {

constexpr std::string_view kForm = "KEY client,generator NAMESPACE,... (or *)";

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) out.push_back(item);
  return out;
}

Result<Access> parse_access(const std::string& roles, const std::string& namespaces) {
  MEMSLOT_TRY(Access access, Access::of(namespaces));
  access.client = access.generator = false;
  for (const std::string& role : split(roles)) {
    if (role != "client" && role != "generator")
      return invalid("role", "client or generator", role);
    (role == "client" ? access.client : access.generator) = true;
  }
  return access;
}

}  // namespace

Result<Access> Access::of(const std::string& names) {
  Access access;
  access.all_namespaces = names == "*";
  if (access.all_namespaces) return access;
  access.namespaces = split(names);
  for (const std::string& ns : access.namespaces) {
    MEMSLOT_TRY(check_name("namespace", ns));
  }
  return access;
}

bool Access::sees(std::string_view ns) const {
  return all_namespaces || std::find(namespaces.begin(), namespaces.end(), ns) != namespaces.end();
}

bool Access::sees_all(const std::vector<std::string>& all) const {
  return std::all_of(all.begin(), all.end(), [&](const std::string& ns) { return sees(ns); });
}

Status Access::check_sees_everything(std::string_view verb) const {
  if (all_namespaces) return ok();
  return Error{ErrorCode::kPermission,
               std::string(verb) + ": expected a client that sees every namespace"};
}

std::vector<std::string> Access::seen(const std::vector<std::string>& wanted) const {
  std::vector<std::string> out;
  for (const std::string& ns : wanted) {
    if (sees(ns) && std::find(out.begin(), out.end(), ns) == out.end()) out.push_back(ns);
  }
  return out;
}

Result<AccessList> AccessList::parse(const std::vector<std::string>& lines) {
  AccessList out;
  for (const std::string& line : lines) {
    std::istringstream in(line);
    std::string key, roles, namespaces, more;
    if (!(in >> key >> roles >> namespaces) || (in >> more)) return invalid("clients", kForm, line);
    if (const auto checked = check_key("clients", key); !checked) return checked.error();
    auto access = parse_access(roles, namespaces);
    if (!access) return access.error().with_context("clients: " + line);
    if (!out.by_key_.emplace(key, std::move(access).value()).second) {
      return invalid("clients", "each key once", line);
    }
  }
  return out;
}

std::vector<std::string> AccessList::keys() const {
  std::vector<std::string> out;
  for (const auto& [key, access] : by_key_) out.push_back(key);
  return out;
}

std::optional<Access> AccessList::access_of(std::string_view user) const {
  if (user.empty()) return Access{};
  for (const auto* known : {&by_key_, &inside_}) {
    if (const auto found = known->find(user); found != known->end()) return found->second;
  }
  return std::nullopt;
}

void AccessList::grant(const std::string& user, Access access) {
  MEMSLOT_CHECK(!user.empty() && !by_key_.contains(user));
  inside_[user] = std::move(access);
}

Error invisible(std::string_view what) {
  return {ErrorCode::kNotFound, std::string(what) + ": expected one that exists, found none"};
}

}  // namespace memslot
