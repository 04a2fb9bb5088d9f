#include "controller/step/own_keys.h"

#include <algorithm>

#include "rl/whitened_keys.h"
#include "shared/base/log.h"

namespace memslot {

const OwnKeys::Own& OwnKeys::get(const Whitening& whitening, const std::string& digest,
                                 const MemoryVersion& version, TimePoint deadline) {
  const Key key{digest, version.ref.ns + "/" + version.ref.id, version.token};
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  Own made;
  const auto keys =
      version.keys == 0 ? Result<MemoryKeys>(MemoryKeys{}) : bank_.load_keys(version, deadline);
  if (!keys) {
    log::warn("{}: compared without its keys: {}", version.ref.text(), keys.error().message);
  } else if (keys.value().dim == whitening.dim()) {
    WhitenedKeys whitened = whiten_keys(whitening, keys.value().values);
    made = {std::move(whitened.white), std::move(whitened.mean)};
  }
  values_ += made.rows.size() + made.mean.size();
  return known_[key] = std::move(made);
}

void OwnKeys::score(const Whitening& whitening, const std::string& digest, Queries queries,
                    CandidateList& list, TimePoint deadline) {
  if (values_ > kMostValues) {
    known_.clear();
    values_ = 0;
  }
  const Bf16Product now(queries.now.white), longer(queries.longer.white);
  for (std::size_t i = 1; i < list.candidates.size(); ++i) {
    const Own& own = get(whitening, digest, *list.versions[i], deadline);
    const std::vector<float>& reduced = queries.now.reduced;
    Candidate& candidate = list.candidates[i];
    candidate.key = own.mean;
    candidate.best_key = best_product(own.rows, now);
    candidate.long_key = best_product(own.rows, longer);
    const bool comparable = !own.mean.empty() && own.mean.size() == reduced.size();
    candidate.mean_key = comparable ? dot(own.mean.data(), reduced.data(), reduced.size()) : 0.0f;
  }
}

}  // namespace memslot
