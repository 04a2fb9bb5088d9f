#pragma once
// A policy that recorded decisions are asked of again: a rule, one of the bank's learned ones, or a
// checkpoint that nobody loaded. Nothing is published, and what acts goes on acting.
//
// Threads: values.
#include <memory>
#include <string>
#include <string_view>

#include "controller/policy/policy_shelf.h"

namespace memslot {

struct AskedPolicy {
  std::string spec;  // in full; of a learned one "learned:DIGEST"
  std::shared_ptr<const SelectionPolicy> policy;
  SnapshotPtr learned;  // null: a rule
};

// A rule's spec (selection_policy.h), "learned" (the one that acts) or "learned:DIGEST", where the
// beginning of a digest does if only one version's begins so. `shelf` null: there are no learned
// ones. kInvalidArgument, kNotFound.
Result<AskedPolicy> policy_of_spec(const std::string& spec, PolicyShelf* shelf, TimePoint deadline);

// Of a checkpoint's bytes. Errors as make_snapshot().
Result<AskedPolicy> policy_of_checkpoint(const std::string& bytes, const PolicyEngine& engine);

}  // namespace memslot
