#include <charconv>

#include "rl/policies/base_policy.h"
#include "rl/policies/fixed_policy.h"
#include "rl/policies/nearest_policy.h"
#include "rl/policies/random_policy.h"
#include "rl/selection_policy.h"

namespace memslot {
namespace {

using PolicyPtr = std::shared_ptr<const SelectionPolicy>;

constexpr std::string_view kForms =
    "base, random, nearest[:THRESHOLD], fixed:NAMESPACE/ID[@VERSION], learned or auto";

Result<PolicyPtr> make_nearest(std::string_view spec, std::string_view threshold_text) {
  float threshold = 0;
  const char* end = threshold_text.data() + threshold_text.size();
  const auto parsed = std::from_chars(threshold_text.data(), end, threshold);
  if (parsed.ec != std::errc() || parsed.ptr != end || !(threshold >= -1 && threshold <= 1)) {
    return invalid("policy nearest:THRESHOLD", "a cosine from -1 to 1", spec);
  }
  return PolicyPtr(std::make_shared<NearestPolicy>(threshold));
}

Result<PolicyPtr> make_fixed(std::string_view ref_text) {
  auto ref = MemoryRef::parse(ref_text);
  if (!ref) return ref.error().with_context("policy fixed");
  return PolicyPtr(std::make_shared<FixedPolicy>(std::move(ref).value()));
}

}  // namespace

Result<PolicyPtr> make_policy(std::string_view spec) {
  const std::size_t colon = spec.find(':');
  const std::string_view name = spec.substr(0, colon);
  const bool plain = colon == std::string_view::npos;
  const std::string_view rest = plain ? std::string_view() : spec.substr(colon + 1);
  if (name == "base" && plain) return PolicyPtr(std::make_shared<BasePolicy>());
  if (name == "random" && plain) return PolicyPtr(std::make_shared<RandomPolicy>());
  if (name == "nearest" && plain) {
    return PolicyPtr(std::make_shared<NearestPolicy>(kDefaultNearestThreshold));
  }
  if (name == "nearest") return make_nearest(spec, rest);
  if (name == "fixed" && !plain) return make_fixed(rest);
  return invalid("policy", kForms, spec.empty() ? std::string_view("nothing") : spec);
}

}  // namespace memslot
