#pragma once
// What a peer may do and see, by its CURVE public key.
//
// A line of the `clients` setting:   KEY ROLES NAMESPACES
//   KEY         40 characters of Z85
//   ROLES       client, generator or both, separated by ','
//   NAMESPACES  names separated by ',', or '*' for all
// On a link without CURVE (loopback, ipc: only this user) every peer may do and see everything.
//
// Threads: immutable.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/error.h"

namespace memslot {

struct Access {
  bool client = true;
  bool generator = true;
  bool all_namespaces = true;
  std::vector<std::string> namespaces{};  // where not all

  // Both roles; "NAMESPACE,..." or "*". kInvalidArgument.
  static Result<Access> of(const std::string& names);
  bool sees(std::string_view ns) const;
  bool sees_all(const std::vector<std::string>& all) const;
  // kPermission, naming the verb, for who does not see every namespace.
  Status check_sees_everything(std::string_view verb) const;
  // Those of `wanted` that it sees, in order, each once.
  std::vector<std::string> seen(const std::vector<std::string>& wanted) const;
};

class AccessList {
 public:
  // kInvalidArgument naming the line.
  static Result<AccessList> parse(const std::vector<std::string>& lines);

  std::vector<std::string> keys() const;  // of `clients` lines
  // Somebody inside this process (joined_channel.h). REQUIRES: `user` is neither "" nor a key.
  void grant(const std::string& user, Access access);
  // `user`: the proven key, "" on a link without CURVE. None: not on the list.
  std::optional<Access> access_of(std::string_view user) const;

 private:
  std::map<std::string, Access, std::less<>> by_key_;
  std::map<std::string, Access, std::less<>> inside_;
};

// kNotFound, in the words for a memory that does not exist: an invisible namespace looks like none.
Error invisible(std::string_view what);

}  // namespace memslot
