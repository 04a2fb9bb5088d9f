#include "controller/replay/asked_policy.h"

#include <utility>

namespace memslot {
namespace {

constexpr std::string_view kLearned = "learned";
constexpr std::size_t kDigestDigits = 64;

AskedPolicy asked(SnapshotPtr snapshot) {
  return {std::string(kLearned) + ":" + snapshot->digest, snapshot->policy, std::move(snapshot)};
}

// The one digest that begins with `beginning`.
Result<std::string> whole_digest(std::string_view beginning, PolicyShelf& shelf,
                                 TimePoint deadline) {
  if (beginning.size() == kDigestDigits) return std::string(beginning);
  MEMSLOT_TRY(const auto records, shelf.list(deadline));
  std::string found;
  for (const PolicyRecord& record : records) {
    if (!record.digest.starts_with(beginning) || record.digest == found) continue;
    if (!found.empty()) {
      return invalid("policy learned", "the beginning of one digest, not of several", beginning);
    }
    found = record.digest;
  }
  return found.empty() ? std::string(beginning) : found;
}

}  // namespace

Result<AskedPolicy> policy_of_spec(const std::string& spec, PolicyShelf* shelf,
                                   TimePoint deadline) {
  const std::string_view rest =
      spec.starts_with(kLearned) ? std::string_view(spec).substr(kLearned.size()) : "";
  const bool learned = spec == kLearned || (rest.size() > 1 && rest[0] == ':');
  if (!learned) {
    AskedPolicy out{.spec = spec, .policy = {}, .learned = {}};
    MEMSLOT_TRY(out.policy, make_policy(spec));
    return out;
  }
  if (shelf == nullptr) {
    return Error{ErrorCode::kNotFound, "policy " + spec + ": expected one that is kept"};
  }
  if (!rest.empty()) {
    MEMSLOT_TRY(const std::string digest, whole_digest(rest.substr(1), *shelf, deadline));
    MEMSLOT_TRY(SnapshotPtr found, shelf->find(digest, deadline));
    return asked(std::move(found));
  }
  SnapshotPtr head = shelf->head();
  if (head == nullptr) {
    return Error{ErrorCode::kNotFound, "policy learned: expected one that is loaded, found none"};
  }
  return asked(std::move(head));
}

Result<AskedPolicy> policy_of_checkpoint(const std::string& bytes, const PolicyEngine& engine) {
  MEMSLOT_TRY(SnapshotPtr snapshot, make_snapshot(bytes, engine));
  return asked(std::move(snapshot));
}

}  // namespace memslot
