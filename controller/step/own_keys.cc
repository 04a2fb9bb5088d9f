#include "controller/step/own_keys.h"

#include <algorithm>
#include <cmath>

#include "shared/base/log.h"

namespace memslot {

const OwnKeys::Whitened& OwnKeys::get(const Whitening& whitening, const std::string& digest,
                                      const MemoryVersion& version, TimePoint deadline) {
  const Key key{digest, version.ref.ns + "/" + version.ref.id, version.token};
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  Whitened made;
  const std::size_t r = whitening.reduced_dim();
  const auto keys =
      version.keys == 0 ? Result<MemoryKeys>(MemoryKeys{}) : bank_.load_keys(version, deadline);
  if (!keys) {
    log::warn("{}: compared without its keys: {}", version.ref.text(), keys.error().message);
  } else if (keys.value().dim == whitening.dim()) {
    const std::size_t dim = whitening.dim();
    made.rows.resize(keys.value().rows() * r);
    made.mean.assign(r, 0.0f);
    for (std::size_t row = 0; row < keys.value().rows(); ++row) {
      const std::span out(made.rows.data() + row * r, r);
      whitening.apply({keys.value().values.data() + row * dim, dim}, out);
      for (std::size_t j = 0; j < r; ++j) made.mean[j] += out[j];
    }
    const float norm = std::sqrt(dot(made.mean.data(), made.mean.data(), r));
    for (float& x : made.mean) x = norm > 0 ? x / norm : 0.0f;
  }
  values_ += made.rows.size() + made.mean.size();
  return known_[key] = std::move(made);
}

void OwnKeys::score(const Whitening& whitening, const std::string& digest,
                    std::span<const float> query, CandidateList& list, TimePoint deadline) {
  if (values_ > kMostValues) {
    known_.clear();
    values_ = 0;
  }
  const std::size_t r = whitening.reduced_dim();
  for (std::size_t i = 1; i < list.candidates.size(); ++i) {
    const Whitened& own = get(whitening, digest, *list.versions[i], deadline);
    Candidate& candidate = list.candidates[i];
    candidate.key = own.mean;
    candidate.best_key = candidate.mean_key = 0;
    if (query.size() != r || own.mean.empty()) continue;
    candidate.mean_key = dot(own.mean.data(), query.data(), r);
    candidate.best_key = -1;
    for (std::size_t row = 0; row * r < own.rows.size(); ++row) {
      candidate.best_key =
          std::max(candidate.best_key, dot(own.rows.data() + row * r, query.data(), r));
    }
  }
}

}  // namespace memslot
